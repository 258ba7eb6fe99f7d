"""Chores: what is done again and again beside the requests."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

Chore = Callable[[], Coroutine[Any, Any, None]]


async def repeated(once: Callable[[], object], every_seconds: float) -> None:
    """Do it again and again, on a thread and after a pause, until cancelled. What it raises ends that."""
    while True:
        await asyncio.sleep(every_seconds)
        await asyncio.to_thread(once)
