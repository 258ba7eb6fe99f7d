"""Texts that were encoded before: a customer asks after the same classes again and again."""

from collections import OrderedDict

from vendor_service.encoder.queries import Vectors

_OVERHEAD = 400  # bytes of Python's own for an entry, about


class TextCache:
    """The rows of the texts that were asked last, in at most `max_bytes`. For one thread.

    Each account has entries of its own: how fast an answer comes must not tell what others asked.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._rows: OrderedDict[tuple[str, str], Vectors] = OrderedDict()

    def get(self, account: str, text: str) -> Vectors | None:
        """The row of shape (dimensions,), if it is known."""
        row = self._rows.get((account, text))
        if row is not None:
            self._rows.move_to_end((account, text))
        return row

    def put(self, account: str, text: str, row: Vectors) -> None:
        """Remember a row, and forget those that nobody asked after for longest."""
        key = (account, text)
        if key in self._rows:
            return
        self._rows[key] = row.copy()  # not a view that keeps the rows of its whole batch
        self._bytes += _size(text, row)
        while self._bytes > self._max_bytes:
            (_, oldest), forgotten = self._rows.popitem(last=False)
            self._bytes -= _size(oldest, forgotten)


def _size(text: str, row: Vectors) -> int:
    return 4 * len(text) + row.nbytes + _OVERHEAD
