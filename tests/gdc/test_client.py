"""Requests, pages and retries, against a server that fails on demand."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.gdc.server import FakeGdc

from momkd.errors import GdcError
from momkd.gdc.client import Client, read_token
from momkd.gdc.query import cases, diagnostic_slides, star_counts

TOKEN = "t" * 40


def test_search_asks_as_documented_and_joins_the_pages(gdc: FakeGdc, client: Client) -> None:
    gdc.page_limit = 2
    answer = client.search(diagnostic_slides("TCGA-BRCA"))
    assert [hit["file_name"][:23] for hit in answer.hits] == [
        "TCGA-A1-AAAA-01Z-00-DX1",
        "TCGA-A1-AAAA-01Z-00-DX2",
        "TCGA-A1-BBBB-01Z-00-DX1",
        "TCGA-B2-CCCC-01Z-00-DX1",
        "TCGA-B2-DDDD-01Z-00-DX1",
        "TCGA-B2-EEEE-06Z-00-DX1",
    ]
    bodies = [request.body for request in gdc.asked("/files")]
    assert [body["from"] for body in bodies] == [0, 2, 4]
    assert {body["sort"] for body in bodies} == {"file_id:asc"}
    assert bodies[0]["filters"]["op"] == "and"
    assert {one["content"]["field"] for one in bodies[0]["filters"]["content"]} == {
        "cases.project.project_id",
        "data_type",
        "experimental_strategy",
        "data_format",
    }


def test_only_star_counts_of_the_project_are_found(gdc: FakeGdc, client: Client) -> None:
    hits = client.search(star_counts("TCGA-BRCA")).hits
    assert [int(hit["file_id"][:8], 16) for hit in hits] == [21, 22, 23, 24, 25, 26]
    assert "analysis" not in hits[0]


def test_an_empty_answer_is_an_empty_list(gdc: FakeGdc, client: Client) -> None:
    assert client.search(cases("TCGA-NONE")).hits == []


@pytest.mark.parametrize(
    "fault", [500, 502, 503, 504, 429, 408, "drop", "html", ("truncate", 40), ("retry-after", 0)], ids=str
)
def test_what_may_pass_is_tried_again(gdc: FakeGdc, client: Client, fault: object) -> None:
    gdc.faults["/status"] = [fault, fault]
    said: list[str] = []
    client = replace(client, on_retry=said.append)
    assert client.data_release() == "Data Release 45.0 - December 04, 2025"
    assert len(gdc.asked("/status")) == 3
    assert len(said) == 2
    assert said[0].startswith(f"{gdc.url}/status: ")


def test_the_number_of_retries_is_kept_and_said(gdc: FakeGdc, client: Client) -> None:
    gdc.faults["/status"] = [503] * 9
    with pytest.raises(GdcError, match=r"/status: the server answers 503 .*; tried 4 times → run the same command"):
        client.data_release()
    assert len(gdc.asked("/status")) == 4


def test_waiting_doubles_and_obeys_retry_after(gdc: FakeGdc, client: Client) -> None:
    gdc.faults["/status"] = [503, 503, 503]
    start = time.monotonic()
    replace(client, backoff=0.04).data_release()
    assert 0.75 * (0.04 + 0.08 + 0.16) <= time.monotonic() - start < 2
    gdc.faults["/status"] = [("retry-after", 1)]
    start = time.monotonic()
    client.data_release()
    assert 1 <= time.monotonic() - start < 3


def test_a_server_that_is_not_there(client: Client) -> None:
    with pytest.raises(GdcError, match=r"no connection: .*refused.*; tried 4 times"):
        replace(client, server="http://127.0.0.1:9").data_release()


@pytest.mark.parametrize(("status", "hint"), [(403, "--token FILE"), (401, "--token FILE"), (404, "momkd gdc plan")])
def test_what_will_not_pass_is_said_at_once(gdc: FakeGdc, client: Client, status: int, hint: str) -> None:
    gdc.faults["/status"] = [status]
    with pytest.raises(GdcError) as caught:
        client.data_release()
    assert len(gdc.asked("/status")) == 1
    assert hint in str(caught.value)
    assert "(sorry [31m)" in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_list_that_changes_while_it_is_read_is_refused(gdc: FakeGdc, client: Client) -> None:
    gdc.page_limit = 2
    search, calls = gdc.search, 0

    def shrinking(records: list, body: dict) -> dict:
        nonlocal calls
        calls += 1
        return search(records[calls - 1 :], body)

    gdc.search = shrinking  # type: ignore[method-assign]
    with pytest.raises(GdcError, match="announced 6 at first and 5 now"):
        client.search(diagnostic_slides("TCGA-BRCA"))


def test_a_hit_that_comes_twice_is_refused(gdc: FakeGdc, client: Client) -> None:
    gdc.cases.append(gdc.cases[0])
    with pytest.raises(GdcError, match="1 hits came twice"):
        client.search(cases("TCGA-BRCA"))


def test_an_empty_page_before_the_end_does_not_loop(gdc: FakeGdc, client: Client) -> None:
    gdc.page_limit = 0
    with pytest.raises(GdcError, match="0 hits so far"):
        client.search(cases("TCGA-BRCA"))


def test_warnings_are_passed_on_in_one_line(gdc: FakeGdc, client: Client) -> None:
    gdc.warnings = {"fields": "unrecognized values:\n[x]\x1b[0m"}
    assert client.search(cases("TCGA-BRCA")).warnings == ("fields: unrecognized values: [x] [0m",)


def test_the_token_goes_with_files_to_its_server_and_nowhere_else(gdc: FakeGdc, client: Client) -> None:
    with FakeGdc(files=gdc.files, bodies=gdc.bodies) as other:
        path = gdc.data_path("nationwidechildrens.org_clinical_drug_brca.txt")
        gdc.faults[path] = [("redirect", f"{other.url}{path}")]
        trusted = replace(client, token=TOKEN)
        with trusted.open_file(path.removeprefix("/data/"), 3) as response:
            assert response.read() == b"another table"[3:]
        trusted.data_release()
        assert gdc.asked(path)[0].headers["X-Auth-Token"] == TOKEN
        assert "X-Auth-Token" not in gdc.asked("/status")[0].headers
        assert "X-Auth-Token" not in other.asked(path)[0].headers
        assert other.asked(path)[0].headers["Range"] == "bytes=3-"
    assert TOKEN not in repr(trusted)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_redirects_to_other_protocols_are_refused(gdc: FakeGdc, client: Client, target: str) -> None:
    gdc.faults["/status"] = [("redirect", target)]
    with pytest.raises(GdcError, match="(?i)redirect"):
        client.data_release()


@pytest.mark.parametrize(
    "server",
    ["api.gdc.cancer.gov", "file:///etc/passwd", "ftp://host", "https://", "https://user:pw@host", "http://h?x"],
)
def test_no_address_of_a_server(server: str) -> None:
    with pytest.raises(GdcError, match="no address of a server"):
        Client(server)


def test_a_token_does_not_travel_unencrypted() -> None:
    assert Client("http://mirror.example/").server == "http://mirror.example"
    assert Client("https://mirror.example/", TOKEN).server == "https://mirror.example"
    with pytest.raises(GdcError, match="must not travel unencrypted"):
        Client("http://mirror.example", TOKEN)


def test_token_files(tmp_path: Path) -> None:
    file = tmp_path / "token.txt"
    file.write_text(f"{TOKEN}\n")
    assert read_token(file) == TOKEN
    for text in ("", "short", f"{TOKEN}\nX-Evil: {TOKEN}"):
        file.write_text(text)
        with pytest.raises(GdcError, match="no token in it"):
            read_token(file)
    with pytest.raises(GdcError, match="not readable"):
        read_token(tmp_path / "absent")
