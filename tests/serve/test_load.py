"""Many requests at once: every one answered, the same numbers, and no memory kept."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from tests.serve.conftest import Running

IN_FLIGHT = 32


def memory(running: Running) -> int:
    """Resident bytes of the service and its workers."""
    pages = 0
    for pid in running.processes():
        pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


async def ask_often(base: str, body: bytes, times: int) -> list[tuple[int, float]]:
    limits = httpx.Limits(max_connections=IN_FLIGHT)
    async with httpx.AsyncClient(base_url=base, limits=limits, timeout=120, trust_env=False) as client:
        turns = asyncio.Semaphore(IN_FLIGHT)

        async def one() -> tuple[int, float]:
            async with turns:
                answer = await client.post("/api/predict", params={"model": "her2", "name": "A1.h5"}, content=body)
                return answer.status_code, answer.json().get("prediction", {}).get("high", -1.0)

        return await asyncio.gather(*(one() for _ in range(times)))


def test_many_requests_at_once(service: Running, at_hand: Path) -> None:
    body = (at_hand / "A1.h5").read_bytes()

    def ask(times: int) -> list[tuple[int, float]]:
        # In a thread of its own: Playwright, where it ran before, keeps a loop in this one.
        with ThreadPoolExecutor(1) as beside:
            return beside.submit(asyncio.run, ask_often(service.base, body, times)).result()

    kept = service.left()
    ask(100)
    before = memory(service)
    answers = ask(300)
    assert {status for status, _ in answers} == {200}
    assert len({value for _, value in answers}) == 1
    assert memory(service) <= 1.10 * before
    assert service.left() == kept
