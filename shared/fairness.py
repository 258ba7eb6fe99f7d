"""Fair waiting: accounts take turns, so that a busy one delays the others by one turn at most."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Items that wait, by account. One thread at a time may use it; any may ask for its length.

    Accounts take turns; within an account it is first come, first served. Items of the background are taken
    only when nothing else waits. The owner drops the items of callers who have left.
    """

    def __init__(self) -> None:
        self._urgent: _Lanes[Item] = _Lanes()
        self._background: _Lanes[Item] = _Lanes()

    def __len__(self) -> int:
        return self._urgent.count + self._background.count

    @property
    def urgent(self) -> int:
        """How many items wait that are not of the background."""
        return self._urgent.count

    def put(self, account: str, items: Iterable[Item], *, background: bool = False) -> None:
        """Add items behind those of the same account."""
        self._lanes(background).put(account, list(items), first=False)

    def put_back(self, account: str, items: Iterable[Item], *, background: bool = False) -> None:
        """Add items that were taken, but not done, before those of the same account."""
        self._lanes(background).put(account, list(items), first=True)

    def take(self, *, background: bool = True) -> Item | None:
        """The next item, if there is one; its account goes behind all others."""
        return next(iter(self.take_run(lambda _: False, background=background)), None)

    def take_run(self, more: Callable[[Item], bool], *, background: bool = True) -> list[Item]:
        """The next item, and those behind it of the same account for as long as `more` agrees.

        The account goes behind all others. The list is empty if nothing waits.
        """
        return self._next(background).take(more)

    def peek(self, *, background: bool = True) -> Item | None:
        """The item that would be taken next, if there is one."""
        return self._next(background).first()

    def drop(self, account: str, belongs: Callable[[Item], bool], *, background: bool = False) -> None:
        """Forget the items of an account that belong to a caller who has left."""
        self._lanes(background).drop(account, belongs)

    def clear(self) -> list[Item]:
        """Forget everything; the items that waited."""
        return self._urgent.clear() + self._background.clear()

    def _lanes(self, background: bool) -> "_Lanes[Item]":
        return self._background if background else self._urgent

    def _next(self, background: bool) -> "_Lanes[Item]":
        return self._background if background and not self._urgent.count else self._urgent


class _Lanes(Generic[Item]):
    """The items of each account, in the order in which accounts have their turns."""

    def __init__(self) -> None:
        self.count = 0
        self._by_account: dict[str, deque[Item]] = {}

    def put(self, account: str, items: list[Item], *, first: bool) -> None:
        if not items:
            return
        lane = self._by_account.setdefault(account, deque())
        if first:
            lane.extendleft(reversed(items))
        else:
            lane.extend(items)
        self.count += len(items)

    def take(self, more: Callable[[Item], bool]) -> list[Item]:
        if not self.count:
            return []
        account = next(iter(self._by_account))
        lane = self._by_account.pop(account)
        taken = [lane.popleft()]
        while lane and more(lane[0]):
            taken.append(lane.popleft())
        if lane:
            self._by_account[account] = lane  # behind all others
        self.count -= len(taken)
        return taken

    def first(self) -> Item | None:
        return next((lane[0] for lane in self._by_account.values()), None)

    def drop(self, account: str, belongs: Callable[[Item], bool]) -> None:
        lane = self._by_account.get(account, deque())
        left = deque(item for item in lane if not belongs(item))
        self.count -= len(lane) - len(left)
        if left:
            self._by_account[account] = left
        else:
            self._by_account.pop(account, None)

    def clear(self) -> list[Item]:
        items = [item for lane in self._by_account.values() for item in lane]
        self._by_account.clear()
        self.count = 0
        return items


class FairTurns:
    """Admits `at_once` callers at a time, and `of_one` account so many; accounts take turns.

    It belongs to one event loop.
    """

    def __init__(self, at_once: int = 1, *, of_one: int = 1) -> None:
        self._of_one = of_one
        self._all = asyncio.Semaphore(at_once)
        self._of_account: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def begin(self, account: str) -> Callable[[], None]:
        """Wait for a turn of this account; what ends the turn."""
        # No more than `of_one` of an account wait among the others, who are served in the order they came.
        mine = self._of_account.get(account) or asyncio.Semaphore(self._of_one)
        self._of_account[account] = mine
        await mine.acquire()
        try:
            await self._all.acquire()
        except asyncio.CancelledError:
            mine.release()
            raise

        def end() -> None:
            self._all.release()
            mine.release()

        return end

    @asynccontextmanager
    async def turn(self, account: str) -> AsyncIterator[None]:
        """Wait for a turn of this account, and have it for the block."""
        end = await self.begin(account)
        try:
            yield
        finally:
            end()
