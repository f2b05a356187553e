"""Who may enter: nobody without the token, no page of another site, nobody who calls this machine by another name."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.serve.conftest import Running, serving

from momkd.cli.app import run as momkd

TOKEN = "a-token-of-enough-characters"
EVERYTHING = [
    ("GET", "/"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/metrics"),
    ("GET", "/static/page.js"),
    ("GET", "/api/models"),
    ("GET", "/api/slides"),
    ("POST", "/api/predict?model=her2&name=A1.h5"),
    ("POST", "/api/uploads?name=A1.h5"),
    ("DELETE", "/api/uploads/x"),
    ("POST", "/api/jobs"),
    ("GET", "/api/jobs/x"),
    ("GET", "/api/jobs/x/result"),
    ("GET", "/api/jobs/x/tiles/0/0_0.jpg"),
    ("GET", "/nowhere"),
]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, student: Path, at_hand: Path) -> Iterator[Running]:
    work = tmp_path_factory.mktemp("guarded")
    with serving(work, student, "--features", at_hand, "--max-silence", 1, env={"MOMKD_TOKEN": TOKEN}) as running:
        yield running


@pytest.mark.parametrize(("method", "path"), EVERYTHING)
def test_no_token_no_entry(guarded: Running, method: str, path: str) -> None:
    headers: list[dict[str, str]] = [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"cookie": "momkd_token=wrong"},
        {"cookie": "momkd_token=\x7f;;;"},
    ]
    with guarded.client() as client:
        for one in headers:
            answer = client.request(method, path, headers=one, content=b"body" if method == "POST" else None)
            assert answer.status_code == 401, one
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.request(method, path, params={"token": TOKEN}).status_code in (303, 401)
    assert guarded.left() == []


@pytest.mark.parametrize("path", ["/api/uploads?name=A1.h5", "/api/predict?model=her2&name=A1.h5", "/api/jobs"])
@pytest.mark.parametrize("begun", [b"", b"\x89HDF\r\n\x1a\n and no more"])
def test_a_body_that_does_not_come_is_not_waited_for(guarded: Running, path: str, begun: bytes) -> None:
    host, port = guarded.base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        raw.sendall(f"{head}Content-Length: 100000\r\n\r\n".encode() + begun)
        answer = raw.recv(4096).decode()
        assert answer.startswith(("HTTP/1.1 408", "HTTP/1.1 400")), answer
        while raw.recv(4096):
            pass  # the rest of the answer, and then the end of the connection
    assert guarded.left() == []


def test_the_token_opens(guarded: Running) -> None:
    with guarded.client(headers={"authorization": f"Bearer {TOKEN}"}) as client:
        assert client.get("/api/models").status_code == 200
        assert client.get("/metrics").status_code == 200


def test_anybody_may_ask_whether_it_lives(guarded: Running) -> None:
    with guarded.client() as client:
        assert client.get("/health").json()["status"] == "ok"


def test_the_printed_address_opens_the_page_and_hides_the_token(guarded: Running) -> None:
    assert guarded.address.endswith(f"/?token={TOKEN}")
    with guarded.client() as client:
        answer = client.get(guarded.address)
        assert answer.status_code == 303
        assert answer.headers["location"] == "./"
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert client.get("/").status_code == 200
        assert client.get("/api/slides").status_code == 200


def test_a_person_without_the_token_is_asked_for_it(guarded: Running) -> None:
    with guarded.client() as client:
        answer = client.get("/", headers={"accept": "text/html"})
    assert answer.status_code == 401
    assert '<input name="token" type="password"' in answer.text


def test_a_page_of_another_site_changes_nothing(service: Running, at_hand: Path) -> None:
    body = (at_hand / "A1.h5").read_bytes()
    with service.client() as client:
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
            answer = client.post("/api/uploads?name=A1.h5", content=body, headers={"origin": origin})
            assert answer.status_code == 403
        same = client.post("/api/uploads?name=A1.h5", content=body, headers={"origin": service.base})
        assert same.status_code == 201
        client.delete(f"/api/uploads/{same.json()['upload']}")
    assert service.left() == []


def test_another_name_for_this_machine_is_refused(service: Running) -> None:
    port = service.base.rsplit(":", 1)[1]
    with service.client() as client:
        for host in (f"evil.example:{port}", "evil.example", "localhost.evil.example", ""):
            answer = client.get("/api/slides", headers={"host": host})
            assert answer.status_code == 400, host
        assert client.get("/api/slides", headers={"host": f"localhost:{port}"}).status_code == 200


def test_others_are_let_in_only_with_a_token(student: Path, tmp_path: Path) -> None:
    with serving(tmp_path, student, "--host", "0.0.0.0") as running:
        token = running.address.split("token=")[1]
        assert len(token) >= 32
        port = running.base.rsplit(":", 1)[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert client.get("/api/models").status_code == 401
            assert client.get("/api/models", headers={"authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--token", "short"], "5 characters; expected 16 or more"),
        (["--features", "nowhere"], "nowhere: no such file or folder"),
        (["--port", "70000"], "--port: 70000; expected between 0 and 65535"),
        (["--max-seconds", "0"], "--max-seconds: 0"),
        (["--host", "no.such.host.invalid"], "cannot be listened at"),
    ],
)
def test_wrong_options_are_told(
    student: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert momkd(["serve", str(student), *arguments]) == 1
    assert words in " ".join(capsys.readouterr().err.split())


def test_names_of_models(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert momkd(["serve", str(student), str(student)]) == 1
    assert "two models are called her2" in capsys.readouterr().err
    assert momkd(["serve", f"a b={student}"]) == 1
    assert "not usable in an address" in " ".join(capsys.readouterr().err.split())


def test_a_model_that_cannot_be_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert momkd(["serve", str(tmp_path / "empty"), "--port", "0"]) == 1
    said = capsys.readouterr().err
    assert "found neither a run, a fold nor a student folder" in " ".join(said.split())
    assert "Traceback" not in said


def test_a_port_that_is_taken(service: Running, student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert momkd(["serve", str(student), "--port", service.base.rsplit(":", 1)[1]]) == 1
    assert "cannot be listened at" in capsys.readouterr().err
