"""`momkd gdc` as a user meets it: four verbs from a server to a cohort."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from tests.gdc.conftest import fill
from tests.gdc.server import FakeGdc

from momkd.cli.app import run


@pytest.fixture
def gdc(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGdc]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("momkd.gdc.download._SPARE_BYTES", 0)
    with FakeGdc() as server:
        fill(server)
        yield server


@pytest.mark.parametrize("verb", ["plan", "download", "rna", "cohort"])
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gdc", verb, "--help"]) == 0
    assert f"momkd gdc {verb}" in " ".join(capsys.readouterr().out.split())


def test_from_nothing_to_a_cohort(gdc: FakeGdc, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "brca"
    gdc.faults["/files"] = [503]
    assert run(["gdc", "plan", "--out", str(folder), "--server", gdc.url, "--timeout", "2"]) == 0
    out, err = capsys.readouterr()
    assert "4 patients of 2 sites" in out
    assert f"then momkd gdc download {folder}" in out
    assert "the server answers 503" in err
    assert run(["gdc", "download", str(folder), "--workers", "2"]) == 0
    out, err = capsys.readouterr()
    assert f"{folder}: 9 files downloaded, 0 already there, 0 failed" in out
    assert err.count(": done") == 9
    assert run(["gdc", "download", str(folder), "--what", "slides", "--verify"]) == 0
    assert "0 files downloaded, 5 already there" in capsys.readouterr().out
    assert run(["gdc", "rna", str(folder)]) == 0
    assert "rna.parquet: 4 genes × 3 patients, tpm_unstranded" in capsys.readouterr().out
    (tmp_path / "odx.csv").write_text("patient_id,ODX\nTCGA-A1-AAAA,H\n")
    assert run(["gdc", "cohort", str(folder), "--labels", str(tmp_path / "odx.csv")]) == 0
    out = capsys.readouterr().out
    assert "5 slides of 4 patients; patient_id, slide_id, site, HER2, PR, ER" in out
    assert f"momkd check {folder / 'experiment.yaml'}" in out
    assert pd.read_csv(folder / "cohort.csv")["ODX"].notna().sum() == 2


def test_a_failed_file_is_exit_code_1_with_the_command_to_go_on(
    gdc: FakeGdc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "brca")
    assert run(["gdc", "plan", "--out", folder, "--server", gdc.url, "--limit", "1"]) == 0
    gdc.faults["*"] = [404] * 2
    assert run(["gdc", "download", folder, "--what", "slides", "--workers", "1"]) == 1
    out = capsys.readouterr().out
    assert "2 failed" in out
    assert f"momkd gdc download {folder} --what slides" in out
    assert "momkd gdc plan again" in out
    assert not list(Path(folder).rglob("*.svs"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["download", "DIR", "--what", "slide"], "expected some of clinical, rna, slides"),
        (["download", "DIR", "--token", "TOKEN"], "only if you name it"),
        (["rna", "DIR", "--values", "tpm"], "expected one of tpm_unstranded"),
        (["plan", "--out", "DIR", "--project", "CPTAC-3"], "a TCGA project"),
        (["plan", "--out", "DIR", "--server", "ftp://x"], "no address of a server"),
        (["download", "absent"], "momkd gdc plan --out absent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_said(
    arguments: list[str], words: str, gdc: FakeGdc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, token = tmp_path / "brca", tmp_path / "token"
    token.write_text("t" * 40)
    assert run(["gdc", "plan", "--out", str(folder), "--server", gdc.url]) == 0
    asked = len(gdc.requests)
    filled = [{"DIR": str(folder), "TOKEN": str(token)}.get(one, one) for one in arguments]
    assert run(["gdc", *filled]) == 1
    assert words in " ".join(capsys.readouterr().err.split())
    assert len(gdc.requests) == asked


def test_a_token_goes_where_it_is_told_to(gdc: FakeGdc, tmp_path: Path) -> None:
    folder, token = tmp_path / "brca", tmp_path / "token"
    token.write_text("t" * 40)
    assert run(["gdc", "plan", "--out", str(folder), "--server", gdc.url]) == 0
    assert run(["gdc", "download", str(folder), "--what", "clinical", "--token", str(token), "--server", gdc.url]) == 0
    assert gdc.requests[-1].headers["X-Auth-Token"] == "t" * 40
