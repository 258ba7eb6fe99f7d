"""Threads for what may wait until something else lets go of an account in the books."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

_THREADS = 8
_THREADS_OF_ONE = 2

P = ParamSpec("P")
T = TypeVar("T")


class AccountThreads:
    """Threads of their own, of which one account has a few: whoever waits for its row holds up no other.

    What asks the books who a caller is, and what keeps a process and its holds alive, runs on other threads.
    It belongs to the event loop.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "accounts")
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def do(self, account_id: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what changes an account, once a thread is free that the account may have.

        It has the thread until the call has ended, whether or not somebody still waits for it.
        """
        turns = self._turns.get(account_id) or asyncio.Semaphore(_THREADS_OF_ONE)
        self._turns[account_id] = turns
        await turns.acquire()
        call = partial(copy_context().run, function, *args, **kwargs)
        doing = asyncio.get_running_loop().run_in_executor(self._threads, call)
        doing.add_done_callback(lambda _: turns.release())
        return await asyncio.shield(doing)

    def close(self) -> None:
        """Let the threads end; what they have begun goes on."""
        self._threads.shutdown(wait=False)
