"""Threads for what an account may ask that takes long: what waits for its row in the books, or reads much."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

P = ParamSpec("P")
T = TypeVar("T")


class AccountThreads:
    """Threads of their own, of which one account has a few: whoever waits for its row holds up no other.

    Nor does who reads much, for which there are other ones. What asks the books who a caller is, and what
    keeps a process and its holds alive, runs on neither. It belongs to the event loop.
    """

    def __init__(self) -> None:
        self._changing = _Threads("accounts", 8, of_one=2)
        # One of an account: to read takes Python's lock more than it waits, so that two read no faster.
        self._reading = _Threads("readers", 4, of_one=1)

    async def do(self, account_id: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what changes an account, once a thread is free that the account may have.

        It has the thread until the call has ended, whether or not somebody still waits for it.
        """
        return await self._changing.call(account_id, partial(function, *args, **kwargs))

    async def read(self, account_id: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what only reads of an account, in the same way; it waits for none of its changes."""
        return await self._reading.call(account_id, partial(function, *args, **kwargs))

    def close(self) -> None:
        """Let the threads end; what they have begun goes on."""
        self._changing.close()
        self._reading.close()


class _Threads:
    """Some threads, of which one account has so many at most."""

    def __init__(self, name: str, count: int, *, of_one: int) -> None:
        self._threads = ThreadPoolExecutor(count, name)
        self._of_one = of_one
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def call(self, account_id: str, function: Callable[[], T]) -> T:
        turns = self._turns.get(account_id) or asyncio.Semaphore(self._of_one)
        self._turns[account_id] = turns
        await turns.acquire()
        call = partial(copy_context().run, function)
        doing = asyncio.get_running_loop().run_in_executor(self._threads, call)
        doing.add_done_callback(lambda _: turns.release())
        return await asyncio.shield(doing)

    def close(self) -> None:
        self._threads.shutdown(wait=False)
