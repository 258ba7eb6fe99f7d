"""Reading bodies: a large one gives way to others."""

import asyncio

import pytest
from starlette.requests import Request
from starlette.types import Message, Scope

from shared.http import body
from shared.http.body import BodyReader, BodyReceiver
from shared.http.capacity import Capacity, Reservation

_BLOCK = bytes(body._BLOCK_BYTES)


class _Size:
    """Counts what it is given."""

    def __init__(self) -> None:
        self.size = 0

    def feed(self, block: bytes) -> None:
        self.size += len(block)

    def finish(self) -> int:
        return self.size


def _request(blocks: int) -> Request:
    left = blocks

    async def receive() -> Message:
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": _BLOCK, "more_body": left > 0}

    scope: Scope = {"type": "http", "headers": [], "state": {}}
    scope["state"]["receiver"] = BodyReceiver(scope, receive)
    return Request(scope, scope["state"]["receiver"].receive)


def test_a_large_body_is_read_with_rests_while_others_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    async def read(blocks: int, reservation: Reservation) -> int:
        rests.clear()
        assert await reader.read(_request(blocks), reservation, _Size(), int) == blocks * len(_BLOCK)
        assert all(seconds > 0 for seconds in rests)
        return len(rests)

    async def main() -> None:
        capacity = Capacity(max_inputs=10, max_bytes=2**30, max_seconds=60)
        with capacity.reserve("a") as mine:
            assert await read(8, mine) == 0  # alone
            with capacity.reserve("a"):
                assert await read(8, mine) == 0  # alone all the same
            with capacity.reserve("b"):
                assert await read(4, mine) == 0
                assert await read(8, mine) == 4 + 2  # for the last, empty block and the end

    monkeypatch.setattr(asyncio, "sleep", rest)
    reader = BodyReader(2**30, 4 * len(_BLOCK))
    asyncio.run(main())
