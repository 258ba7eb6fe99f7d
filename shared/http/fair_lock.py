"""A lock that accounts take in turns: work that must not run twice at a time is fair among accounts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class FairLock:
    """A lock for all accounts. One with many waiting gets it once, then all others before it again."""

    def __init__(self) -> None:
        self._one = asyncio.Lock()
        self._of_account: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def acquired(self, account: str) -> AsyncIterator[None]:
        """Hold the lock for this account, once it is free."""
        # Only one of an account waits among the others, who are served in the order in which they came.
        mine = self._of_account.get(account) or asyncio.Lock()
        self._of_account[account] = mine
        async with mine, self._one:
            yield
