"""Turns: what must not happen twice at a time happens for one account after the other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class Turns:
    """One turn at a time. Whoever has many waiting is served once, then all others before it is again."""

    def __init__(self) -> None:
        self._one = asyncio.Lock()
        self._of_account: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, account: str) -> AsyncIterator[None]:
        """Wait for a turn of this account, and take it."""
        # Of one account one waits among the others, who are served in the order in which they came.
        mine = self._of_account.get(account) or asyncio.Lock()
        self._of_account[account] = mine
        async with mine, self._one:
            yield
