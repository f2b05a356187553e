"""Downloads: whatever the server does, a file under its final name is whole and right."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.gdc.conftest import add_slide
from tests.gdc.server import FakeGdc

from momkd.errors import GdcError
from momkd.gdc import download as module
from momkd.gdc.ask import make_plan
from momkd.gdc.client import Client, Stopped
from momkd.gdc.download import Event, download
from momkd.gdc.fetch import fetch
from momkd.gdc.plan import Plan, make_settings, write_plan

Planned = tuple[Path, Plan]


def assert_final_names_are_right(folder: Path, plan: Plan, gdc: FakeGdc) -> int:
    """Every file under a final name has the right bytes; returns how many there are."""
    found = 0
    for file in plan.used():
        place = folder / file.path
        if place.exists():
            assert place.read_bytes() == gdc.bodies[file.file_id]
            found += 1
    return found


def assert_complete(folder: Path, plan: Plan, gdc: FakeGdc) -> None:
    assert assert_final_names_are_right(folder, plan, gdc) == len(plan.used())
    assert not list(folder.rglob("*.part"))


def big(gdc: FakeGdc) -> str:
    return next(one["file_name"] for one in gdc.files if one["file_name"].startswith("TCGA-B2-DDDD"))


def test_everything_is_downloaded_once(planned: Planned, client: Client, gdc: FakeGdc) -> None:
    folder, plan = planned
    events: list[Event] = []
    report = download(folder, client, watch=events.append)
    assert report.complete
    assert len(report.done) == 9
    assert_complete(folder, plan, gdc)
    assert sum(event.count for event in events if event.kind == "bytes") == sum(file.size for file in plan.used())
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"slides", "rna", "clinical"}
    asked = len(gdc.requests)
    again = download(folder, client)
    assert (len(again.done), len(again.present), len(gdc.requests)) == (0, 9, asked)


def test_kinds(planned: Planned, client: Client) -> None:
    folder, _ = planned
    assert len(download(folder, client, kinds=["rna", "clinical"]).done) == 4
    assert not (folder / "slides").exists()


PASSING = {
    "500": [500],
    "three statuses": [503, 502, 504],
    "no answer": ["drop", "drop"],
    "hangs": ["hang"],
    "nothing": [("truncate", 0)],
    "cut short": [("truncate", 1), ("truncate", 70_000), 503],
    "cut short, no ranges": [("truncate", 5000), "no range"],
    "cut short, another range": [("truncate", 5000), "wrong range"],
    "cut short twice": [("truncate", 5000), ("truncate", 5000), "drop"],
    "wrong bytes once": [("body", b"slide five" * 29_999 + b"slide FIVE")],
    "redirect": [("redirect", "SELF")],
}


@pytest.mark.parametrize("name", PASSING)
def test_faults_that_pass(planned: Planned, client: Client, gdc: FakeGdc, name: str) -> None:
    folder, plan = planned
    path = gdc.data_path(big(gdc))
    gdc.faults[path] = [
        ("redirect", gdc.url + path) if fault == ("redirect", "SELF") else fault for fault in PASSING[name]
    ]
    report = download(folder, client)
    assert report.problems == ()
    assert_complete(folder, plan, gdc)


def test_resume_asks_for_the_rest_only(planned: Planned, client: Client, gdc: FakeGdc) -> None:
    folder, plan = planned
    path = gdc.data_path(big(gdc))
    gdc.faults[path] = [("truncate", 5000)]
    download(folder, client)
    assert [request.headers.get("Range") for request in gdc.asked(path)] == [None, "bytes=5000-"]
    assert {request.headers["Accept-Encoding"] for request in gdc.asked(path)} == {"identity"}
    assert_complete(folder, plan, gdc)


def test_resumes_a_part_of_an_earlier_run(planned: Planned, client: Client, gdc: FakeGdc) -> None:
    folder, plan = planned
    file = next(file for file in plan.used("slides") if file.name == big(gdc))
    part = folder / "slides" / f"{file.name}.part"
    part.parent.mkdir()
    part.write_bytes(gdc.bodies[file.file_id][:123_456])
    download(folder, client)
    assert [request.headers.get("Range") for request in gdc.asked(gdc.data_path(file.name))] == ["bytes=123456-"]
    assert_complete(folder, plan, gdc)


@pytest.mark.parametrize("kind", ["whole", "spoilt", "spoilt whole", "too long", "empty"])
def test_parts_as_a_crash_may_leave_them(planned: Planned, client: Client, gdc: FakeGdc, kind: str) -> None:
    folder, plan = planned
    file = next(file for file in plan.used("slides") if file.name == big(gdc))
    body = gdc.bodies[file.file_id]
    parts = {
        "whole": body,
        "spoilt": b"\0" * 5000,
        "spoilt whole": b"\0" * len(body),
        "too long": body + b"x",
        "empty": b"",
    }
    part = folder / "slides" / f"{file.name}.part"
    part.parent.mkdir()
    part.write_bytes(parts[kind])
    assert download(folder, client).problems == ()
    assert_complete(folder, plan, gdc)
    asked = [request.headers.get("Range") for request in gdc.asked(gdc.data_path(file.name))]
    expected = {
        "whole": [],
        "spoilt": ["bytes=5000-", None],
        "spoilt whole": [None],
        "too long": [None],
        "empty": [None],
    }
    assert asked == expected[kind]


STAYING = {
    "wrong bytes": ([("body", b"x" * 300_000)] * 9, "twice; expected"),
    "more bytes": ([("more", 1)] * 9, "more bytes than the 300000 that were announced"),
    "another size": ([("length", 299_999)] * 9, "the server has 299999 bytes; expected the 300000"),
    "compressed": (["gzip"] * 9, "sent as 'gzip'"),
    "404": ([404], "404"),
    "403": ([403], "--token"),
    "503": ([503] * 9, "503"),
    "never whole": ([("truncate", 5000), *[("truncate", 0)] * 9], "ended after 5000 of 300000 bytes; tried 4 times"),
    "hangs": (["hang"] * 9, "timed out"),
}


@pytest.mark.parametrize("name", STAYING)
def test_faults_that_stay_are_reported_and_the_others_go_on(
    planned: Planned, client: Client, gdc: FakeGdc, name: str
) -> None:
    folder, plan = planned
    faults, words = STAYING[name]
    path = gdc.data_path(big(gdc))
    gdc.faults[path] = list(faults)
    client = replace(client, timeout=0.1)
    report = download(folder, client)
    assert not report.complete
    (problem,) = report.problems
    assert words in str(problem)
    assert str(folder / "slides" / big(gdc)) == problem.subject
    assert len(report.done) == 8
    assert assert_final_names_are_right(folder, plan, gdc) == 8
    gdc.faults.clear()
    assert download(folder, client).complete
    assert_complete(folder, plan, gdc)


def test_the_name_that_a_server_gives_with_the_bytes_is_not_used(
    planned: Planned, client: Client, tmp_path: Path
) -> None:
    """The server sends Content-Disposition: ../../../evil with every file."""
    download(planned[0], client)
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]
    assert not (tmp_path.parent / "evil").exists()


def test_progress_is_no_failure(gdc: FakeGdc, client: Client, tmp_path: Path) -> None:
    """A bad line that breaks more often than there are retries, but brings a MiB each time."""
    body = random.Random(0).randbytes(6 << 20)
    add_slide(gdc, 30, "TCGA-A1-AAAA-01Z-00-DX9", body)
    plan, _ = make_plan(client, make_settings("TCGA-BRCA"))
    file = next(file for file in plan.used("slides") if file.size == len(body))
    gdc.faults[f"/data/{file.file_id}"] = [("truncate", 1 << 20)] * 5
    fetch(replace(client, retries=1), file, tmp_path / "x.svs")
    assert (tmp_path / "x.svs").read_bytes() == body
    assert len(gdc.asked(f"/data/{file.file_id}")) == 6


def test_a_server_without_ranges_that_never_finishes_is_given_up(gdc: FakeGdc, client: Client, tmp_path: Path) -> None:
    """It brings the same two MiB again and again, which is no progress."""
    body = bytes(3 << 20)
    add_slide(gdc, 30, "TCGA-A1-AAAA-01Z-00-DX9", body)
    plan, _ = make_plan(client, make_settings("TCGA-BRCA"))
    file = next(file for file in plan.used("slides") if file.size == len(body))
    gdc.faults[f"/data/{file.file_id}"] = [("no range, truncate", 2 << 20)] * 50
    with pytest.raises(GdcError, match="the body ended after 2097152 of 3145728 bytes; tried 4 times"):
        fetch(client, file, tmp_path / "x.svs")
    assert len(gdc.asked(f"/data/{file.file_id}")) == 4


def test_workers_are_bounded(planned: Planned, client: Client, gdc: FakeGdc) -> None:
    folder, _ = planned
    lock, running, most = threading.Lock(), 0, 0

    def watch(event: Event) -> None:
        nonlocal running, most
        with lock:
            running += {"started": 1, "done": -1}.get(event.kind, 0)
            most = max(most, running)

    gdc.block = 4000
    download(folder, client, workers=2, watch=watch)
    assert most == 2
    assert running == 0


def test_a_server_that_is_down_is_given_up(gdc: FakeGdc, client: Client, tmp_path: Path) -> None:
    for number in range(100, 130):
        add_slide(gdc, number, "TCGA-A1-AAAA-01Z-00-DX1", b"more slides")
    plan, _ = make_plan(client, make_settings("TCGA-BRCA"))
    write_plan(plan, tmp_path)
    gdc.faults["*"] = [503] * 10_000
    report = download(tmp_path, replace(client, retries=0), workers=2)
    # The other worker may be at a file of its own when the tenth in a row fails.
    assert 10 <= len(report.problems) <= 11
    assert len(report.problems) + len(report.untried) == len(plan.used())
    assert not report.complete
    gdc.faults.clear()
    assert download(tmp_path, replace(client, stop=threading.Event())).complete


def test_controlled_files_need_a_token(gdc: FakeGdc, client: Client, tmp_path: Path) -> None:
    gdc.files[0]["access"] = "controlled"
    plan, notes = make_plan(client, make_settings("TCGA-BRCA"))
    assert any("1 files are controlled" in str(note) for note in notes)
    write_plan(plan, tmp_path)
    with pytest.raises(GdcError, match="1 files are controlled: TCGA-A1-AAAA-01Z-00-DX1"):
        download(tmp_path, client)
    assert download(tmp_path, replace(client, token="t" * 30)).complete
    assert gdc.asked(f"/data/{gdc.files[0]['file_id']}")[0].headers["X-Auth-Token"] == "t" * 30


def test_room_is_checked_before_anything_is_written(
    planned: Planned, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, plan = planned
    total = sum(file.size for file in plan.used())
    part = folder / "slides" / f"{plan.used('slides')[0].name}.part"
    part.parent.mkdir()
    part.write_bytes(b"s" * 1000)

    def usage(free: int) -> object:
        return lambda path: type("Usage", (), {"free": free})()

    monkeypatch.setattr(module.shutil, "disk_usage", usage(total - 1001))
    with pytest.raises(GdcError, match="GB free; expected"):
        download(folder, client)
    assert [path.name for path in folder.rglob("*") if path.is_file() and path.parent != folder] == [part.name]
    monkeypatch.setattr(module.shutil, "disk_usage", usage(total - 1000))
    assert download(folder, client).complete


def test_a_full_disk_stops_the_download(planned: Planned, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("momkd.gdc.fetch._Part.append", full)
    report = download(planned[0], client, workers=1)
    assert len(report.problems) <= 2
    assert "No space left" in str(report.problems[0])
    assert len(report.untried) >= 7


def test_stopping_leaves_what_is_there(planned: Planned, client: Client, gdc: FakeGdc) -> None:
    folder, plan = planned
    file = next(file for file in plan.used("slides") if file.name == big(gdc))
    gdc.block = 10_000

    def stop(count: int) -> None:
        client.stop.set()

    with pytest.raises(Stopped):
        fetch(client, file, folder / file.path, advance=stop)
    part = folder / "slides" / f"{file.name}.part"
    assert gdc.bodies[file.file_id].startswith(part.read_bytes())
    assert 0 < part.stat().st_size < file.size


def test_files_where_gdc_client_puts_them_count(planned: Planned, client: Client, gdc: FakeGdc) -> None:
    folder, plan = planned
    for file in plan.used("slides"):
        place = folder / "slides" / file.file_id / file.name
        place.parent.mkdir(parents=True)
        place.write_bytes(gdc.bodies[file.file_id])
    report = download(folder, client)
    assert (len(report.done), len(report.present)) == (4, 5)


def test_a_file_of_another_size_is_no_file(planned: Planned, client: Client, gdc: FakeGdc) -> None:
    folder, plan = planned
    place = folder / plan.used("slides")[0].path
    place.parent.mkdir()
    place.write_bytes(b"somebody's")
    assert len(download(folder, client).done) == 9
    assert_complete(folder, plan, gdc)


def test_verify_finds_what_rotted(planned: Planned, client: Client, gdc: FakeGdc) -> None:
    folder, plan = planned
    download(folder, client)
    place = folder / plan.used("slides")[0].path
    data = bytearray(place.read_bytes())
    data[7] ^= 1
    place.write_bytes(data)
    assert download(folder, client).done == ()
    report = download(folder, client, verify=True)
    assert [file.name for file in report.done] == [place.name]
    assert "its MD5 was wrong; it is downloaded again" in str(report.problems[0])
    assert report.complete
    assert_complete(folder, plan, gdc)


@pytest.mark.skipif(os.name == "nt", reason="needs advisory locks")
def test_one_download_at_a_time(planned: Planned, client: Client) -> None:
    folder, _ = planned
    started = False

    def watch(event: Event) -> None:
        nonlocal started
        if not started:
            started = True
            with pytest.raises(GdcError, match=f"process {os.getpid()} is downloading here"):
                download(folder, client)

    assert download(folder, client, watch=watch).complete
    assert started


CHILD = """
import os, signal, sys, threading
from pathlib import Path
import momkd.gdc.download as module
from momkd.gdc.client import Client

module._SPARE_BYTES = 0
left, lock = int(sys.argv[3]), threading.Lock()

def watch(event):
    global left
    with lock:
        left -= max(event.count, 0) if event.kind == "bytes" else 0
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

report = module.download(Path(sys.argv[1]), Client(sys.argv[2], backoff=0.01), workers=3, watch=watch)
sys.exit(0 if report.complete else 1)
"""

KILLED_BEFORE_RENAME = """
import os, signal
import momkd.files

def fsync(descriptor, calls=[]):
    calls.append(descriptor)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

momkd.files.os.fsync = fsync
"""


def run_child(folder: Path, url: str, code: str = CHILD, bytes_to_live: int = 1 << 40) -> int:
    arguments = [sys.executable, "-c", code, str(folder), url, str(bytes_to_live)]
    return subprocess.run(arguments, check=False, timeout=30).returncode


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_at_random_points_then_complete_and_equal(planned: Planned, gdc: FakeGdc) -> None:
    folder, plan = planned
    gdc.block, gdc.on_sent = 3000, lambda _: time.sleep(0.0005)
    chance = random.Random(7)
    for _ in range(4):
        there = sum(path.stat().st_size for file in plan.used() for path in folder.glob(f"{file.path}*"))
        left = sum(file.size for file in plan.used()) - there
        assert run_child(folder, gdc.url, bytes_to_live=chance.randrange(1, left // 2)) == -signal.SIGKILL
        assert_final_names_are_right(folder, plan, gdc)
    assert run_child(folder, gdc.url) == 0
    assert_complete(folder, plan, gdc)
    # What was there was gone on with.
    assert any("Range" in request.headers for request in gdc.requests)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_between_the_last_byte_and_the_name(planned: Planned, gdc: FakeGdc) -> None:
    folder, plan = planned
    assert run_child(folder, gdc.url, KILLED_BEFORE_RENAME + CHILD) == -signal.SIGKILL
    assert assert_final_names_are_right(folder, plan, gdc) <= 2
    assert run_child(folder, gdc.url) == 0
    assert_complete(folder, plan, gdc)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGINT")
def test_interrupted_it_ends_at_once_and_keeps_what_came(planned: Planned, gdc: FakeGdc) -> None:
    folder, plan = planned
    gdc.block, gdc.on_sent = 3000, lambda _: time.sleep(0.002)
    # A shell starts what runs in its background with SIGINT ignored.
    heard = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code = heard + CHILD.replace("SIGKILL)", "SIGINT); left = 1 << 40")
    assert run_child(folder, gdc.url, code, bytes_to_live=60_000) in (-signal.SIGINT, 130)
    assert assert_final_names_are_right(folder, plan, gdc) < len(plan.used())
    assert sum(part.stat().st_size for part in folder.rglob("*.part")) > 0
    gdc.on_sent = None
    assert run_child(folder, gdc.url) == 0
    assert_complete(folder, plan, gdc)
