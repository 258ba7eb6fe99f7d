"""The queue of images that a deployed student asks its vendor about: those of several requests together.

It never keeps a caller waiting for longer than agreed: what the vendor has not answered by then, the student
answers alone. What was asked is paid and kept all the same, for the next time.
"""

import asyncio
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from client.data.kept_images import KeptImages
from client.errors import ClientError, FingerprintChanged, RequestRefused, SpendingStopped, VendorError
from client.serving.answers import Answer
from client.serving.asking import Asker
from client.vendors.query import Query
from shared.fairness import FairQueue

_LARGEST_BATCH = 64
# Images that may wait, and bytes that may wait or be asked about; the student answers about all others.
_MOST_WAITING, _MOST_BYTES = 1024, 64 * 2**20
# Seconds for which the vendor is left alone after a failure.
_SILENCE = 30.0
# Where connecting may have been paid for in vain, the silence grows by a factor each time, up to a bound.
_LONGER, _LONGEST_SILENCE = 8, 6 * 3600.0
# Seconds at the end for the vendor to answer what it was asked.
_PARTING = 10.0

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Item:
    """An image of a caller that waits, and its size in bytes; its future belongs to the event loop."""

    account: str
    query: Query
    size: int
    answered: "asyncio.Future[Answer | None]"
    is_held: bool = False  # in memory, and counted

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return not self.answered.done()


class CallersShares:
    """What each caller has had of the budget of a period: never more than is left for all others.

    Args:
        callers: how many there are; one alone may have all of it.
    """

    def __init__(self, callers: int) -> None:
        self.is_one = callers == 1
        self._period = ""
        self._had: Counter[str] = Counter()

    def admit(self, items: Sequence[_Item], period: str, left: int | None) -> list[_Item]:
        """The images that may be paid for now, of which none has been."""
        if self.is_one or left is None:
            return list(items)
        if period != self._period:
            self._period, self._had = period, Counter()
        if left == 0:
            return list(items)  # so that it is said why nobody is asked
        had, admitted = self._had.copy(), []
        for item in items:
            mine = had[item.account]
            if mine + 2 <= left or (left and not mine):  # with this one, no more than is left then
                had[item.account] += 1
                left -= 1
                admitted.append(item)
        return admitted

    def note(self, items: Sequence[_Item]) -> None:
        """Images were paid for."""
        self._had.update(item.account for item in items)


class AskQueue:
    """A queue, and a thread that asks one vendor about what waits in it; callers take turns.

    Args:
        open_asker: connects to the vendor.
        kept: where images are kept that it answered about, now or before, but noise; `None` keeps none.
        callers: how many callers share the budget.

    Attributes:
        cost_micros: what was paid here, in millionths of the vendor's currency unit.
    """

    def __init__(
        self,
        open_asker: Callable[[], AbstractContextManager[Asker]],
        kept: KeptImages | None,
        callers: int = 1,
    ) -> None:
        self._open = open_asker
        self._kept = kept
        self.cost_micros = 0
        self._asker: Asker | None = None
        self._stack = ExitStack()
        self._shares = CallersShares(callers)
        self._waiting: FairQueue[_Item] = FairQueue()
        self._bytes: Counter[str] = Counter()  # that wait or are asked about, by caller
        self._in_hand: list[_Item] = []
        self._changed = threading.Condition()
        self._closed = False
        self._silent_until = 0.0
        self._next_silence = _SILENCE
        self._thread = threading.Thread(target=self._work, name="vendor", daemon=True)

    def connect(self) -> None:
        """Connect now, if the vendor answers; otherwise that is tried again when there is something to ask.

        Raises:
            FingerprintChanged: it sells another model than the one that taught the student.
            ClientError: whatever the vendor does, it cannot be asked: there is no such address, say.
        """
        try:
            self._asker = self._stack.enter_context(self._open())
        except FingerprintChanged:
            raise
        except (VendorError, SpendingStopped) as error:  # it is away or refuses, and may not tomorrow
            self._fall_silent(str(error), self._silence_after(error))

    def start(self) -> None:
        """Start the thread; it is called where the event loop runs."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> None:
        """End the thread when it has what it asked for. Whoever still waits is answered by the student."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_PARTING)
        if not self._thread.is_alive():  # what it still waits for is noted, and counts in the budget
            self._stack.close()

    @property
    def budget_left(self) -> int | None:
        """How many queries may still be paid for in this period; `None` for no limit, or if not known."""
        return None if self._asker is None else self._asker.left

    def room(self, account: str) -> int:
        """For how many bytes of a caller's images there is room now; 0 where nobody would answer about them.

        One caller gets no more of it than is left for the others.
        """
        if self._asker is None and time.monotonic() < self._silent_until:
            return 0
        with self._changed:
            return self._room(account)

    async def ask(self, queries: Sequence[Query], *, account: str, seconds: float) -> list[Answer | None]:
        """The vendor's answers about a caller's images, within some seconds; `None` where there is none."""
        least = _MOST_BYTES // _MOST_WAITING
        items = [
            _Item(account, query, max(len(query.read()), least), self._loop.create_future())
            for query in queries
        ]
        self._add(items)
        try:
            await asyncio.wait([item.answered for item in items], timeout=seconds)
            return [item.answered.result() if item.answered.done() else None for item in items]
        finally:
            self._drop(items)

    def _add(self, items: Sequence[_Item]) -> None:
        with self._changed:
            for item in items:
                if item.size <= self._room(item.account):
                    self._waiting.put(item.account, [item])
                    self._bytes[item.account] += item.size
                    item.is_held = True
                else:
                    item.answered.set_result(None)
            self._changed.notify()

    def _room(self, account: str) -> int:
        mine = 0 if self._shares.is_one else self._bytes[account]
        return max(0, _MOST_BYTES - self._bytes.total() - mine)

    def _release(self, items: Sequence[_Item]) -> None:
        for item in items:
            if item.is_held:
                item.is_held = False
                self._bytes -= Counter({item.account: item.size})

    def _drop(self, items: Sequence[_Item]) -> None:
        """Let go of images whose caller is gone; those that the vendor is being asked about stay in hand."""
        for item in items:
            item.answered.cancel()
        with self._changed:
            for account in {item.account for item in items}:
                self._waiting.drop(account, lambda item: not item.wanted)
            self._release([item for item in items if item not in self._in_hand])

    def _work(self) -> None:
        while True:
            with self._changed:
                self._release(self._in_hand)
                self._in_hand = []
                while not self._closed and not self._waiting:
                    self._changed.wait()
                if self._closed:
                    self._tell([(item, None) for item in self._waiting.clear()])
                    return
                taken = (self._waiting.take() for _ in range(_LARGEST_BATCH))
                self._in_hand = [item for item in taken if item is not None]
            try:
                self._ask(self._in_hand)
            except Exception:  # the student answers, whatever it is
                _log.exception("the vendor could not be asked")
                self._tell([(item, None) for item in self._in_hand])

    def _ask(self, batch: list[_Item]) -> None:
        """Answer a batch: what the cache has at once, the rest when the vendor has answered."""
        asker = self._connected()
        if asker is None:
            self._tell([(item, None) for item in batch])
            return
        known = asker.recall([item.query for item in batch])
        told = list(zip(batch, known, strict=True))
        self._tell([(item, answer) for item, answer in told if answer is not None])
        self._keep(told)  # it may have given way
        rest = [item for item, answer in told if answer is None and item.wanted]
        if not rest:
            return
        if time.monotonic() < self._silent_until:
            self._tell([(item, None) for item in rest])
            return
        admitted = self._shares.admit(rest, asker.period, asker.left)
        self._tell([(item, None) for item in rest if item not in admitted])
        if not admitted:
            return
        said = asker.ask([item.query for item in admitted])
        asker.hold_owed([item.query for item in admitted])
        self.cost_micros += said.cost_micros
        told = list(zip(admitted, said.of_each, strict=True))
        self._shares.note([item for item, answer in told if answer and answer.answered_by == "vendor"])
        self._tell(told)
        if said.ended and not any(each and each.answered_by == "vendor" for each in said.of_each):
            # A price that nobody has seen is not paid; whoever starts this again accepts it.
            self._fall_silent(said.stopped, math.inf if said.price_raised else _SILENCE)
        self._keep(told)

    def _connected(self) -> Asker | None:
        if self._asker is None and time.monotonic() >= self._silent_until:
            try:
                self.connect()
            except ClientError as error:
                self._fall_silent(str(error), self._silence_after(error))
            except Exception as error:  # nobody knows whether it was paid for, so it is not for every batch
                self._fall_silent(repr(error), _LONGEST_SILENCE)
                raise
        return self._asker

    def _silence_after(self, error: ClientError) -> float:
        """For how many seconds to leave a vendor alone that could not be connected to."""
        if not error.paid_in_vain:
            return _SILENCE
        if isinstance(error, RequestRefused):  # it sells no such model, and will not in a minute
            return _LONGEST_SILENCE
        silence = self._next_silence
        self._next_silence = min(_LONGER * silence, _LONGEST_SILENCE)
        return silence

    def _fall_silent(self, why: str, seconds: float) -> None:
        self._silent_until = time.monotonic() + seconds
        how_long = "until it is started again" if math.isinf(seconds) else f"for {seconds:.0f} s"
        _log.warning("the student answers alone %s: %s", how_long, why)

    def _keep(self, told: Sequence[tuple[_Item, Answer | None]]) -> None:
        """Keep the images that were answered about, but for those in which the vendor sees no class."""
        contents = [item.query.content() for item, answer in told if answer and not answer.is_noise]
        if self._kept is not None and contents:
            problem = self._kept.keep(contents)
            if problem:
                _log.warning("not all images that were asked about are kept: %s", problem)

    def _tell(self, answers: list[tuple[_Item, Answer | None]]) -> None:
        self._loop.call_soon_threadsafe(_note, answers)


def _note(answers: list[tuple[_Item, Answer | None]]) -> None:
    for item, answer in answers:
        if not item.answered.done():
            item.answered.set_result(answer)
