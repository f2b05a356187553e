"""The look at the machine: honest, and never in the way."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from momkd.cli.app import run as momkd
from momkd.study import doctor
from momkd.study.doctor import Finding, examine_machine

Usage = namedtuple("Usage", "total used free")


def of(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def test_this_machine_will_do(tmp_path: Path) -> None:
    found = examine_machine(tmp_path / "not" / "yet", {})
    assert of(found, "python").verdict == of(found, "torch").verdict == "PASS"
    assert str(tmp_path) in of(found, "disk").found
    assert all(finding.mend for finding in found if finding.verdict != "PASS")
    assert len({finding.name for finding in found}) == len(found)


@pytest.mark.parametrize(("free", "verdict"), [(30 << 30, "PASS"), (5 << 30, "WARN"), (1 << 20, "FAIL")])
def test_disks(free: int, verdict: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, 0, free))
    assert of(examine_machine(tmp_path, {}), "disk").verdict == verdict


def test_threads_and_tokens_from_the_environment(tmp_path: Path) -> None:
    nothing = examine_machine(tmp_path, {"HF_HOME": str(tmp_path)})
    assert of(nothing, "gated encoders").verdict == "WARN"
    told = examine_machine(tmp_path, {"OMP_NUM_THREADS": "4096", "HF_TOKEN": "secret"})
    assert of(told, "threads").verdict == "WARN"
    assert of(told, "gated encoders").verdict == "PASS"
    assert "secret" not in str(told)
    (tmp_path / "token").write_text("x")
    assert of(examine_machine(tmp_path, {"HF_HOME": str(tmp_path)}), "gated encoders").verdict == "PASS"


def test_an_extra_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_provided", lambda: ["wsi"])
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda _: None)
    found = of(examine_machine(tmp_path, {}), "extra wsi")
    assert (found.verdict, "momkd[wsi]" in found.mend) == ("WARN", True)


def test_a_look_that_fails_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> Any:
        raise OSError("no such device")

    monkeypatch.setattr(shutil, "disk_usage", broken)
    found = examine_machine(tmp_path, {})
    assert of(found, "disk").found == "could not be looked at (no such device)"
    assert of(found, "python").verdict == "PASS"


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert momkd(["doctor", str(tmp_path)]) == 0
    assert "PASS" in capsys.readouterr().out
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, 0))
    assert momkd(["doctor", str(tmp_path), "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert {"name": "disk", "verdict": "FAIL"}.items() <= next(row for row in rows if row["name"] == "disk").items()
