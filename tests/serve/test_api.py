"""The API as a program uses it: scores, jobs, files; and everything that it refuses, with nothing left behind."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import signal
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import httpx
import numpy as np
import pandas as pd
import pytest
import torch
from tests.serve.conftest import Running, serving

from momkd.study.predict import predict

MakeFeatures = Callable[..., Path]


@pytest.fixture
def client(service: Running) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


def finished(client: httpx.Client, job: str, seconds: float = 60) -> dict[str, object]:
    """The state of a job when it has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        told = client.get(f"/api/jobs/{job}").raise_for_status().json()
        if told["state"] in ("done", "failed"):
            return dict(told)
        time.sleep(0.05)
    raise AssertionError(f"the job did not end: {told}")


def send(client: httpx.Client, path: Path, name: str | None = None) -> httpx.Response:
    return client.post("/api/uploads", params={"name": name or path.name}, content=path.read_bytes())


def test_models_tell_their_cards(client: httpx.Client) -> None:
    (model,) = client.get("/api/models").json()
    assert model["name"] == "her2"
    assert model["classes"] == ["low", "high"]
    assert model["threshold"] == 0.4
    assert model["features"]["encoder"] == "lite"
    assert "Not a medical device" in model["intended_use"]


def test_a_score_is_that_of_predict(
    client: httpx.Client, service: Running, student: Path, make_features: MakeFeatures, tmp_path: Path
) -> None:
    path = make_features(tmp_path, "new", seed=3)
    expected, _ = predict(student, [path])
    answer = client.post("/api/predict", params={"model": "her2", "name": "new.h5"}, content=path.read_bytes())
    assert answer.status_code == 200
    found = answer.json()
    assert found["slide_id"] == "new"
    assert found["prediction"]["high"] == pytest.approx(float(expected["prob_high"].iloc[0]), abs=1e-12)
    assert found["predicted"] == expected["predicted"].iloc[0]
    assert found["lowest"]["high"] < found["prediction"]["high"] < found["highest"]["high"]
    assert service.left() == []


def test_a_sent_file_is_explained(
    client: httpx.Client, service: Running, make_features: MakeFeatures, tmp_path: Path
) -> None:
    kept = send(client, make_features(tmp_path, "mine", columns=7, rows=3))
    assert kept.status_code == 201
    assert kept.json()["kind"] == "features"
    assert kept.json()["facts"] == {"patches": 21, "width": 5, "encoder": "lite", "coordinates": True}
    order = client.post("/api/jobs", json={"model": "her2", "uploads": [kept.json()["upload"]]})
    assert order.status_code == 202
    job = order.json()["job"]
    assert finished(client, job)["state"] == "done"
    result = client.get(f"/api/jobs/{job}/result").json()
    assert result["slide_id"] == "mine"
    assert result["patches"] == 21
    assert {"patches.csv", "patches.geojson", "influence-high.png", "explanation.json"} <= set(result["files"])
    table = pd.read_csv(io.BytesIO(client.get(f"/api/jobs/{job}/files/patches.csv").content))
    assert len(table) == 21
    objects = client.get(f"/api/jobs/{job}/files/patches.geojson")
    assert 'filename="mine.patches.geojson"' in objects.headers["content-disposition"]
    assert len(objects.json()["features"]) == 21
    for name in result["files"]:
        assert client.get(f"/api/jobs/{job}/files/{name}").status_code == 200
    # Its pixels are not at hand.
    assert client.get(f"/api/jobs/{job}/tiles/0/0_0.jpg").status_code == 422
    assert client.delete(f"/api/jobs/{job}").status_code == 204
    assert client.get(f"/api/jobs/{job}").status_code == 404
    assert service.left() == []


def test_the_map_is_the_table_in_bytes(client: httpx.Client) -> None:
    job = client.post("/api/jobs", json={"model": "her2", "slide_id": "A1"}).json()["job"]
    finished(client, job)
    view = client.get(f"/api/jobs/{job}/view").json()
    table = pd.read_csv(io.BytesIO(client.get(f"/api/jobs/{job}/files/patches.csv").content))
    for axis in ("x", "y"):
        corners = np.frombuffer(base64.b64decode(view["patches"][axis]), "<i4")
        assert corners.tolist() == table[axis].tolist()
    assert view["extent"] == {"x": 0, "y": 0, "width": 6 * 64, "height": 4 * 64}
    layers = {layer["name"]: layer for layer in view["layers"]}
    for name in ("influence-high", "evidence", "attention"):
        layer = layers[name]
        steps = np.frombuffer(base64.b64decode(layer["values"]), "u1")
        found = layer["low"] + steps * (layer["high"] - layer["low"]) / 255
        wanted = table[name].clip(layer["low"], layer["high"])
        assert np.abs(found - wanted).max() <= (layer["high"] - layer["low"]) / 255 * 0.51
    assert {"prototypes: memory", "prototypes: rna"} <= {layer["group"] for layer in view["layers"]}
    assert all(len(base64.b64decode(colours)) == 256 * 3 for colours in view["colours"].values())
    top = next(row for row in view["rows"] if row["name"] == "most for high")
    assert top["patches"][0] == int(table["influence-high"].idxmax())
    client.delete(f"/api/jobs/{job}")


def test_without_coordinates_there_is_a_score_and_no_map(client: httpx.Client) -> None:
    job = client.post("/api/jobs", json={"model": "her2", "slide_id": "B2"}).json()["job"]
    assert finished(client, job)["state"] == "done"
    result = client.get(f"/api/jobs/{job}/result").json()
    assert result["map"] is False
    assert "no coordinates" in result["notes"][0]
    # Where the file lies on the service's disk is nobody's business.
    assert str(Path("/")) + "tmp" not in json.dumps(result)
    client.delete(f"/api/jobs/{job}")


def test_what_is_at_hand(client: httpx.Client) -> None:
    assert client.get("/api/slides").json() == [
        {"slide_id": "A1", "features": True, "slide": False},
        {"slide_id": "B2", "features": True, "slide": False},
    ]
    for name in ("C3", "../A1", "/etc/passwd"):
        answer = client.post("/api/jobs", json={"model": "her2", "slide_id": name})
        assert answer.status_code == 404
        assert "not at hand" in answer.json()["error"]


def _h5(**features: object) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("features", **features)
    return buffer.getvalue()


class _Harm:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.system, ("touch /tmp/momkd-was-harmed",)


def _pickled() -> bytes:
    buffer = io.BytesIO()
    torch.save({"features": _Harm()}, buffer)
    return buffer.getvalue()


GOOD = _h5(data=np.ones((3, 5), np.float32))
REFUSED = {
    "path": ("../../x.h5", GOOD, 400),
    "absolute path": ("/tmp/x.h5", GOOD, 400),
    "backslash": ("..\\x.h5", GOOD, 400),
    "hidden": (".x.h5", GOOD, 400),
    "control character": ("x\n.h5", GOOD, 400),
    "null": ("x\0.h5", GOOD, 400),
    "no name": ("", GOOD, 400),
    "long name": ("x" * 300 + ".h5", GOOD, 400),
    "oversized": ("x.h5", GOOD + bytes(1 << 20), 413),
    "empty": ("x.h5", b"", 422),
    "truncated": ("x.h5", GOOD[: len(GOOD) // 2], 422),
    "other type": ("x.exe", GOOD, 415),
    "no type": ("x", GOOD, 415),
    "zip as features": ("x.h5", b"PK\x03\x04" + bytes(100), 415),
    "pickle as features": ("x.h5", pickle.dumps(_Harm()), 415),
    "pickle": ("x.pt", _pickled(), 415),
    "pickle in pkl": ("x.pkl", pickle.dumps(_Harm()), 415),
    "pickle as a slide": ("x.svs", pickle.dumps(_Harm()), 415),
    "no features": ("x.h5", _h5(data=np.ones(0, np.float32)), 422),
    "not numbers": ("x.h5", _h5(data=np.array([b"a", b"b"])), 422),
    "not finite": ("x.h5", _h5(data=np.full((3, 5), np.nan, np.float32)), 422),
    "unpacks to much": (
        "x.h5",
        _h5(shape=(40_000, 512), dtype="f4", chunks=(40_000, 512), compression="gzip", fillvalue=1.0),
        422,
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_leaves_nothing(client: httpx.Client, service: Running, what: str) -> None:
    name, body, status = REFUSED[what]
    answer = client.post("/api/uploads", params={"name": name}, content=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert len(answer.json()["error"]) > 20
    assert str(service.work) not in answer.text
    assert service.left() == []
    assert not Path("/tmp/momkd-was-harmed").exists()


@pytest.mark.parametrize("what", [what for what in REFUSED if not what.endswith("slide")])
def test_predict_refuses_the_same(client: httpx.Client, service: Running, what: str) -> None:
    name, body, _ = REFUSED[what]
    answer = client.post("/api/predict", params={"model": "her2", "name": name}, content=body)
    assert 400 <= answer.status_code < 500
    assert service.left() == []


def test_features_of_another_width_or_size_are_refused(
    client: httpx.Client, service: Running, make_features: MakeFeatures, tmp_path: Path
) -> None:
    for words, options in (("width 4", {"width": 4}), ("patches of 64 µm", {"side": 128.0})):
        path = make_features(tmp_path, "other", **options)
        answer = client.post("/api/predict", params={"model": "her2", "name": "other.h5"}, content=path.read_bytes())
        assert answer.status_code == 422
        assert words in answer.json()["error"]
        assert answer.json()["error"].startswith("other.h5: ")
    assert service.left() == []


def test_a_body_that_hides_its_size(client: httpx.Client, service: Running) -> None:
    def endless() -> Iterator[bytes]:
        yield GOOD
        for _ in range(64):
            yield bytes(1 << 16)

    answer = client.post("/api/uploads", params={"name": "x.h5"}, content=endless())
    assert answer.status_code == 413
    assert service.left() == []


def test_a_sender_that_goes_away(client: httpx.Client, service: Running) -> None:
    host, port = service.base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        head = "POST /api/uploads?name=x.h5 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500000\r\n\r\n"
        raw.sendall(head.encode() + GOOD)
        until = time.monotonic() + 10
        while not service.left() and time.monotonic() < until:
            time.sleep(0.02)
        assert len(service.left()) == 1
    until = time.monotonic() + 10
    while service.left() and time.monotonic() < until:
        time.sleep(0.02)
    assert service.left() == []


@pytest.mark.parametrize(
    ("order", "status"),
    [
        ({"model": "her2"}, 422),
        ({"model": "her2", "slide_id": "A1", "uploads": ["x"]}, 422),
        ({"model": "other", "slide_id": "A1"}, 404),
        ({"model": "her2", "uploads": ["x"]}, 404),
        ({"model": "her2", "uploads": ["../../etc"]}, 404),
        ({"model": "her2", "uploads": ["a", "b", "c"]}, 422),
        ({"slide_id": "A1"}, 422),
        ([], 422),
    ],
)
def test_orders_that_make_no_sense(client: httpx.Client, order: object, status: int) -> None:
    answer = client.post("/api/jobs", json=order)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_two_files_must_be_features_and_their_slide(
    client: httpx.Client, service: Running, make_features: MakeFeatures, tmp_path: Path
) -> None:
    sent = [send(client, make_features(tmp_path, name)).json()["upload"] for name in ("one", "two")]
    answer = client.post("/api/jobs", json={"model": "her2", "uploads": sent})
    assert answer.status_code == 422
    assert "second file of the same kind" in answer.json()["error"]
    for one in sent:
        assert client.delete(f"/api/uploads/{one}").status_code == 204
        assert client.delete(f"/api/uploads/{one}").status_code == 404
    assert service.left() == []


@pytest.mark.parametrize(
    "path",
    [
        "/api/jobs/../../etc/passwd",
        "/api/jobs/nothing",
        "/api/jobs/nothing/files/..%2f..%2fx",
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/nowhere",
    ],
)
def test_paths_lead_nowhere(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "import" not in answer.text


def test_files_that_a_job_did_not_make(client: httpx.Client) -> None:
    job = client.post("/api/jobs", json={"model": "her2", "slide_id": "A1"}).json()["job"]
    finished(client, job)
    for name in ("view.json", "..%2f..%2fx", "other.csv"):
        assert client.get(f"/api/jobs/{job}/files/{name}").status_code == 404
    client.delete(f"/api/jobs/{job}")


def test_the_oldest_ended_job_makes_room(client: httpx.Client, service: Running) -> None:
    jobs = []
    for _ in range(8):
        jobs.append(client.post("/api/jobs", json={"model": "her2", "slide_id": "B2"}).json()["job"])
        finished(client, jobs[-1])
    kept = [job for job in jobs if client.get(f"/api/jobs/{job}").status_code == 200]
    assert kept == jobs[2:]
    for job in kept:
        client.delete(f"/api/jobs/{job}")
    assert service.left() == []


def test_health_numbers_and_documents(client: httpx.Client) -> None:
    assert client.get("/health").json()["status"] == "ok"
    numbers = client.get("/metrics").text
    assert 'momkd_requests_total{method="GET",route="/health",status="200"}' in numbers
    assert 'momkd_worker_alive{worker="quick"} 1.0' in numbers
    schema = client.get("/openapi.json").json()
    assert {"/api/predict", "/api/jobs", "/api/uploads"} <= set(schema["paths"])
    page = client.get("/docs")
    assert "POST /api/predict" in page.text
    assert "//cdn" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_a_killed_worker_is_started_again(student: Path, at_hand: Path, tmp_path: Path) -> None:
    with serving(tmp_path, student, "--features", at_hand) as running, running.client() as client:
        body = (at_hand / "A1.h5").read_bytes()
        asked = {"params": {"model": "her2", "name": "A1.h5"}, "content": body}
        before = client.post("/api/predict", **asked).json()
        for pid in running.processes()[1:]:
            os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + 60
        answers = []
        while time.monotonic() < until:
            answers.append(client.post("/api/predict", **asked))
            if answers[-1].status_code == 200:
                break
        assert answers[-1].json() == before
        assert running.left() == []


def test_a_job_that_takes_too_long_or_is_stopped(student: Path, make_features: MakeFeatures, tmp_path: Path) -> None:
    make_features(tmp_path / "features", "large", columns=300, rows=300)
    arguments = (student, "--features", tmp_path / "features", "--max-seconds", 1)
    with serving(tmp_path / "work", *arguments) as running, running.client() as client:
        job = client.post("/api/jobs", json={"model": "her2", "slide_id": "large"}).json()["job"]
        told = finished(client, job)
        assert told["state"] == "failed"
        assert "longer than 1 s" in str(told["error"])
        job = client.post("/api/jobs", json={"model": "her2", "slide_id": "large"}).json()["job"]
        assert client.delete(f"/api/jobs/{job}").status_code == 204
        until = time.monotonic() + 30
        while any(job in name for name in running.left()) and time.monotonic() < until:
            time.sleep(0.05)
        assert not any(job in name for name in running.left())


def test_nothing_is_left_when_it_ends(student: Path, at_hand: Path, tmp_path: Path) -> None:
    with serving(tmp_path, student, "--features", at_hand) as running, running.client() as client:
        kept = send(client, at_hand / "A1.h5")
        assert kept.status_code == 201
        assert len(running.left()) == 1
        everybody = running.processes()
    assert list(tmp_path.iterdir()) == []
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in everybody) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in everybody)
    assert zipfile.is_zipfile(at_hand / "A1.h5") is False
