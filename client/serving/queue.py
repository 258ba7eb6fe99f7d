"""A queue in which accounts take turns: one with many images waiting does not keep the others waiting."""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items by account, each account's in order. It is not thread-safe."""

    def __init__(self) -> None:
        self._of_account: OrderedDict[str, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, account: str, item: T) -> None:
        """Add an item behind the others of its account."""
        self._of_account.setdefault(account, deque()).append(item)
        self._count += 1

    def take(self) -> tuple[str, T]:
        """The account whose turn it is, and its next item.

        Raises:
            KeyError: there is none.
        """
        account, items = self._of_account.popitem(last=False)
        item = items.popleft()
        if items:
            self._of_account[account] = items
        self._count -= 1
        return account, item
