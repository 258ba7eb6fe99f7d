"""Threads for requests that take long: those that wait for an account's row in the books, or read much."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from shared.fairness import FairTurns

P = ParamSpec("P")
T = TypeVar("T")


class AccountThreads:
    """Threads of which each account has a few, so that an account whose row is locked holds up no other.

    Long reads use a second pool. Neither runs what identifies callers, nor what keeps a process and its holds
    alive. It belongs to the event loop.
    """

    def __init__(self) -> None:
        self._changing = _Threads("accounts", 8, of_one=2)
        # One of an account: to read takes Python's lock more than it waits, so that two read no faster.
        self._reading = _Threads("readers", 4, of_one=1)

    async def do(self, account_id: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that changes an account, once a thread is free that the account may have.

        It has the thread until the call has ended, whether or not somebody still waits for it.
        """
        return await self._changing.call(account_id, partial(function, *args, **kwargs))

    async def read(self, account_id: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that only reads, in the same way; it waits for none of the account's changes."""
        return await self._reading.call(account_id, partial(function, *args, **kwargs))

    def close(self) -> None:
        """Let the threads end; calls that have begun go on."""
        self._changing.close()
        self._reading.close()


class _Threads:
    """`count` threads, of which one account has `of_one` at most."""

    def __init__(self, name: str, count: int, *, of_one: int) -> None:
        self._threads = ThreadPoolExecutor(count, name)
        self._turns = FairTurns(count, of_one=of_one)

    async def call(self, account_id: str, function: Callable[[], T]) -> T:
        end = await self._turns.begin(account_id)
        call = partial(copy_context().run, function)
        doing = asyncio.get_running_loop().run_in_executor(self._threads, call)
        doing.add_done_callback(lambda _: end())
        return await asyncio.shield(doing)

    def close(self) -> None:
        self._threads.shutdown(wait=False)
