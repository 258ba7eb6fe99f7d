"""All that may happen to a batch, drawn from the table of transitions: whatever happens, all is paid once.

A machine gives commands of two runs to one cache. What becomes of each of their requests and jobs is drawn
from the events of `TRANSITIONS`; the vendor's true books are the judge.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from client.cache.cache import EmbeddingCache
from client.cache.file import CacheFile
from client.cache.notes import Batch
from client.errors import ClientError
from client.proofs.canary import Canary
from client.purchase import lifecycle
from client.purchase.buyer import Bulk, Buyer
from client.purchase.checkout import Checkout, Order
from client.purchase.lifecycle import TRANSITIONS, Event, Record, State
from client.purchase.purchase import Purchase
from client.purchase.settlement import Settlement
from client.vendors.query import Query, Spending
from shared.kinds import Usage
from tests.client.cards import MODEL
from tests.client.purchase.fated_vendor import Books, FatedVendor, Killed, vector_of

# How the vendor, the network or the machine brings an event about.
FATES: dict[Event, Sequence[str]] = {
    Event.NOTE: ["serve"],
    Event.HELD: ["killed before"],  # of another run, which has it in hand
    Event.TRY: ["serve"],
    Event.REPEAT: ["lose"],  # where that is not free
    Event.BEGIN: ["serve"],
    Event.ANSWER: ["serve"],
    Event.COMPLETE: ["serve"],
    Event.BILL: ["overcharge"],
    Event.DISPUTE: ["serve"],  # of a canary
    Event.REFUSE: ["refuse", "too large", "unsent"],
    Event.DOUBT: ["cut", "lose", "late", "killed before", "killed after", "running"],
    Event.UNCHARGED: ["cut", "killed before"],
    Event.UNTOLD: ["untold"],
    Event.GONE: ["spent"],
}
Fate = str | Callable[[], object]
WORDS = [Query.text(f"word {number}") for number in range(7)]
# Of each run, the most queries.
BUDGETS = {"a": 5, "b": 9}
# Two keys of one account, and one of another.
ACCOUNTS = {"key": "account", "another key": "account", "another's key": "another"}

RECORDED: dict[Record, tuple[bool | None, int]] = {
    # Whether there is a note afterwards (None: as before), and how many receipts are new at the most.
    Record.NOTHING: (None, 0),
    Record.NOTE: (True, 0),
    Record.RENEW: (None, 0),
    Record.NAME: (True, 0),
    Record.STORE: (False, 1),
    Record.BILL: (None, 1),
    Record.DISPUTE: (False, 1),
    Record.REFUSE: (False, 0),
    Record.LOSE: (False, 1),
    Record.LOSE_TRY: (None, 1),
    Record.DROP: (False, 0),
}


def test_every_event_has_a_fate_and_every_record_is_known() -> None:
    assert {event for _, event in TRANSITIONS} == FATES.keys()
    assert {record for _, record in TRANSITIONS.values()} == RECORDED.keys()


def test_the_docstring_shows_the_table() -> None:
    lines = (line.split() for line in (lifecycle.__doc__ or "").splitlines() if line.startswith("    "))
    shown = [tuple(cells) for cells in lines][1:]
    assert shown == [
        (state.name, event.name, next_state.name, record.name)
        for (state, event), (next_state, record) in TRANSITIONS.items()
    ]


class Watch:
    """Looks whether what happens to a batch is what the table says, and counts it."""

    def __init__(self) -> None:
        self.taken: Counter[tuple[State, Event]] = Counter()
        self.lost: Counter[Query] = Counter()

    @contextmanager
    def watching(self) -> Iterator[None]:
        move = Checkout._move

        def watched(checkout: Checkout, order: Order, event: Event, paid: Any) -> None:
            self.taken[order.state, event] += 1
            state, record = TRANSITIONS[order.state, event]
            is_noted, receipts = RECORDED[record]
            note = checkout.cache.notes.find(order.batch.idempotency_key)
            is_part = record is Record.STORE and state is State.SENT
            if is_noted is not None and not is_part:
                assert (note is not None) == is_noted
            assert receipts or paid.amount == Spending(0, 0)
            if event in (Event.GONE, Event.REPEAT):
                self.lost.update(order.queries)
            move(checkout, order, event, paid)
            assert order.state is state
            assert order.reserved == Spending(0, 0) or state in (
                State.PLANNED, State.NOTED, State.SENT, State.IN_DOUBT
            )  # fmt: skip

        release = Settlement._release

        def released(settlement: Settlement, order: Order) -> None:
            self.lost.update(order.queries)  # it stays noted and set aside, and is bought with this key
            release(settlement, order)

        with patch.object(Checkout, "_move", watched), patch.object(Settlement, "_release", released):
            yield


class Commands:
    """One cache, one vendor, and commands that are given to them."""

    def __init__(self, folder: Path, watch: Watch) -> None:
        self.books = Books()
        self.folder = folder
        self.watch = watch

    @contextmanager
    def _hurried(self, *, is_past: bool, dies_at: int | None) -> Iterator[None]:
        """No real time passes, and the process dies at its n-th transaction."""
        with ExitStack() as stack:
            fresh = stack.enter_context(patch("client.cache.notes.FRESH_SECONDS", 0.0 if is_past else 130.0))
            assert fresh is not None
            stack.enter_context(patch("client.purchase.requests.LARGEST", 1))
            stack.enter_context(patch("client.purchase.requests.BATCH_SIZE", 2))
            stack.enter_context(patch("client.purchase.jobs._LINE_QUERIES", 2))
            stack.enter_context(patch("client.purchase.jobs._FIRST_LOOK", 0.0))
            stack.enter_context(patch("client.purchase.purchase._OTHERS_TAKE", 0.0))
            stack.enter_context(patch.object(Settlement, "_wait_for", lambda *_: self.wait()))
            stack.enter_context(patch.object(Purchase, "_defer", self._deferring(Purchase._defer)))
            stack.enter_context(patch.object(CacheFile, "_begun", self._dying(CacheFile._begun, dies_at)))
            stack.enter_context(self.watch.watching())
            yield

    def wait(self) -> None:
        """Let so much time pass that no vendor is answering anything any more."""
        import client.cache.notes

        self.books.arrive()
        client.cache.notes.FRESH_SECONDS = 0.0

    def _deferring(self, defer: Any) -> Any:
        def patient(purchase: Purchase, *given: Any) -> None:
            self.wait()
            defer(purchase, *given)

        return patient

    @staticmethod
    def _dying(begun: Any, dies_at: int | None) -> Any:
        left = [dies_at]

        @contextmanager
        def dying(file: CacheFile) -> Iterator[None]:
            with begun(file):
                yield
                if left[0] == 0:  # before it is committed
                    left[0] = None
                    raise Killed
            if left[0] is not None:
                left[0] -= 1

        return dying

    def give(
        self,
        run: str,
        wanted: Sequence[Query],
        fates: Sequence[Fate] = (),
        *,
        by_jobs: bool = False,
        waits: bool = True,
        key: str = "key",
        raised: int = 0,
        is_past: bool = False,
        dies_at: int | None = None,
        budget: int | None = None,
        repeats_are_free: bool = True,
    ) -> None:
        """One command, whatever becomes of it."""
        books = self.books
        if is_past:
            books.arrive()
        books.run, books.fates, books.raised = run, list(fates), raised
        with (
            EmbeddingCache(self.folder / "cache.db") as cache,
            self._hurried(is_past=is_past, dies_at=dies_at),
            suppress(ClientError, Killed),
        ):
            vendor = FatedVendor(books, key, ACCOUNTS[key], repeats_are_free=repeats_are_free)
            most, bulk = BUDGETS[run] if budget is None else budget, Bulk(by_jobs, waits)
            teacher = Buyer(vendor, cache, model=vendor.model(), run_id=run, budget=most, bulk=bulk)
            teacher.buy(wanted)
        books.fates = []

    def swap_and_ask_again(self, queries: Sequence[Query]) -> None:
        """A canary, once the vendor sells another model."""
        self.books.is_swapped = True
        with EmbeddingCache(self.folder / "cache.db") as cache, self.watch.watching():
            vendor: Any = FatedVendor(self.books, "key", "account")
            assert Canary(vendor, cache, MODEL).ask(queries).swapped


class Machine(RuleBasedStateMachine):
    """Commands, as they are drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = Path(self.stack.enter_context(TemporaryDirectory()))
        self.commands = Commands(folder, Watch())

    @rule(
        run=st.sampled_from("ab"),
        wanted=st.sampled_from([WORDS[:2], WORDS[:4], WORDS[2:4], WORDS[4:], WORDS, WORDS[::-1]]),
        fates=st.lists(
            st.sampled_from(sorted({fate for _, event in TRANSITIONS for fate in FATES[event]})), max_size=5
        ),
        by_jobs=st.booleans(),
        waits=st.booleans(),
        key=st.sampled_from(["key", "key", *ACCOUNTS]),
        raised=st.sampled_from([0, 0, 0, 5]),
        is_past=st.sampled_from([False, False, True]),
        dies_at=st.none() | st.integers(0, 8),
    )
    def command(self, **given: Any) -> None:
        self.commands.give(**given)

    @rule()
    def time_passes(self) -> None:
        self.commands.books.arrive()

    @invariant()
    def no_budget_is_exceeded(self) -> None:
        for run, most in BUDGETS.items():
            assert len(self.commands.books.charged(run)) <= most

    @invariant()
    def nothing_is_paid_twice_but_what_was_lost(self) -> None:
        books, lost = self.commands.books, self.commands.watch.lost
        for account in set(ACCOUNTS.values()):
            charged = Counter(
                query for name, each in books.charges.items() if name[0] == account for query in each.queries
            )
            assert all(number <= 1 + lost[query] for query, number in charged.items())

    @invariant()
    def every_charge_is_on_record(self) -> None:
        with EmbeddingCache(self.commands.folder / "cache.db") as cache:
            receipts = cache.receipts()
            noted = {note.batch.idempotency_key for note in cache.notes.of_run()}
        told = {receipt.request_id for receipt in receipts}
        lost = {each.idempotency_key.split(":")[0] for each in receipts if each.request_id == "lost"}
        for (_, key), charge in self.commands.books.charges.items():
            assert charge.request_id in told or key.split(":")[0] in noted | lost

    def teardown(self) -> None:
        """In the end all goes well: then nothing is owed, and everything is there."""
        commands, books = self.commands, self.commands.books
        for job in books.jobs.values():
            job.bills_more = 0
        for key in ("another's key", "key", "key"):
            for run in "ab":
                commands.give(run, WORDS, is_past=True, key=key, budget=100)
        with EmbeddingCache(commands.folder / "cache.db") as cache:
            assert cache.known("fp_1", WORDS) == set(WORDS)
            mine = [note for note in cache.notes.of_run() if note.sender.key_id == "key"]
            assert not mine
            told = {receipt.request_id: receipt for receipt in cache.receipts()}
            for charge in books.charges.values():
                receipt = told.get(charge.request_id)
                if receipt is not None and receipt.fault is None:
                    assert (receipt.queries, receipt.run_id) == (len(charge.queries), charge.run)
        self.stack.close()


TestLifecycle = Machine.TestCase
TestLifecycle.settings = settings(
    max_examples=40, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path, Watch())


def test_a_job_that_is_gone_counts_as_paid_though_others_bought_the_same(commands: Commands) -> None:
    commands.give("a", WORDS[:2], by_jobs=True, waits=False, fates=["serve", "running"])
    commands.give("b", WORDS[:2], key="another's key")
    commands.give("a", WORDS, ["spent"])
    assert len(commands.books.charged("a")) == BUDGETS["a"]


def test_every_transition_is_taken(commands: Commands, tmp_path: Path) -> None:
    texts = iter([Query.text(f"text {number}"), Query.text(f"text {number}.5")] for number in range(99))

    def give(*fates: Sequence[Fate], then_run: str = "", **how: Any) -> None:
        """Commands of one run for the same texts, each with these fates; the last may be of another."""
        wanted = next(texts)
        for number, of_each in enumerate(fates, start=1):
            run = then_run if then_run and number == len(fates) else wanted[0].name
            last = {name.removeprefix("then_"): how[name] for name in how if name.startswith("then_")}
            options = {name: how[name] for name in how if not name.startswith("then_")}
            options |= last if number == len(fates) else {}
            commands.give(run, wanted, of_each, budget=99, **options)

    def buy_one_meanwhile() -> None:
        (query, *_) = WORDS
        batch = Batch("elsewhere", "elsewhere", MODEL.fingerprint, (query,))
        with EmbeddingCache(tmp_path / "cache.db") as cache:
            cache.commit(batch, {query: vector_of(query)}, Usage.of({"text": 1}, 20), "req_elsewhere")

    give(["overcharge"], ["overcharge"], [])
    give(["refuse"])
    give(["cut"], [], then_is_past=True)
    give(["lose"], ["untold"], ["spent"])
    give(["cut"], [])  # not charged, and sent again under its old key
    give(["killed before"], [], then_run="another")
    give(["spent"])
    give(["lose once"], repeats_are_free=False)
    give(["serve", "running"], ["untold"], ["spent"], by_jobs=True, waits=False)
    give(["lose"], ["overcharge"], by_jobs=True)
    commands.give("run", WORDS[:2], ["cut"], budget=99)
    commands.give("run", WORDS[2:4], ["serve", "cut"], budget=99)
    commands.give("run", WORDS[:4], ["serve", "serve", buy_one_meanwhile], budget=99)
    commands.swap_and_ask_again(WORDS[:1])
    assert TRANSITIONS.keys() - commands.watch.taken.keys() == set()
