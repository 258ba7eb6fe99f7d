"""The isolation test: does a key of one project see or touch what another project has at a vendor?

Everything is tried over HTTP, as the other project might, and nothing of it can be billed: a file of one
line is sent and deleted again, no job is begun, and whatever could begin one allows it to cost nothing.
"""

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from itertools import islice
from typing import Any, Literal

from client.errors import (
    IdempotencyKeySpent,
    KeyRefused,
    NotFound,
    NotOffered,
    RequestRefused,
    SpendingStopped,
    UsageError,
)
from client.vendors.bulk_api import KEY_LABEL
from client.vendors.teachers.tuition import VendorClient
from client.vendors.transport import NO_HOOKS
from shared.batches import BatchObject, FileObject
from shared.billing import SEALED
from shared.projects import DEFAULT_PROJECT

Outcome = Literal["held", "broken", "not tried"]
_LINE = '{"custom_id": "%s", "method": "POST", "url": "/embed", "body": {"inputs": [{"text": "%s"}]}}\n'
_FILES = 10_000  # of the newest, here as below
_JOBS = 20
_ENTRIES = 1000


@dataclass(frozen=True)
class Attempt:
    """Something that the other key tried: whether the wall held, and what there is to say about it."""

    what: str
    outcome: Outcome
    said: str = ""


@dataclass
class Isolation:
    """What the other key tried, and what came of it.

    Attributes:
        account: the account of the first key.
        project: its project; `None` where its key sees the whole account.
        other_account: the account of the other key.
        other_project: its project.
        attempts: what was tried, in this order.
    """

    account: str
    project: str | None
    other_account: str
    other_project: str | None
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether no wall was found broken."""
        return all(each.outcome != "broken" for each in self.attempts)

    def to_json(self) -> dict[str, Any]:
        """The result for `json.dumps`."""
        return asdict(self) | {"holds": self.holds}


class IsolationTest:
    """Has the key of one client, the other one, try what the key of the first has, and lets go of that."""

    def __init__(self, first: VendorClient, other: VendorClient) -> None:
        """Ask both who they are.

        Raises:
            UsageError: there is no wall between the keys: they are of one project, or the other one sees the
                whole account.
        """
        self._first = first
        self._other = other
        mine, theirs = first.account(), other.account()
        self.found = Isolation(mine.account, mine.project, theirs.account, theirs.project)
        self._same_account = mine.account == theirs.account
        if not self._same_account:
            return
        if theirs.project is None:
            raise UsageError(
                f"The other key sees the whole account {theirs.account}: no wall keeps it out. Take a key of "
                "another project; of the default project one without the scope admin."
            )
        if mine.project == theirs.project:
            raise UsageError(f"Both keys are of the project {mine.project}: take one of another project.")

    def run(self) -> Isolation:
        """Try everything; what was sent in is deleted whatever happens."""
        with self._a_file() as file:
            if file is not None:
                self._files(file)
        self._jobs()
        self._history()
        return self.found

    @contextmanager
    def _a_file(self) -> Iterator[FileObject | None]:
        mark = f"isolation-test-{secrets.token_hex(8)}"
        self._content = (_LINE % (mark, mark)).encode()
        try:
            file = self._first.bulk.send_file(BytesIO(self._content))
        except (KeyRefused, NotOffered) as error:
            self._note("files", "not tried", str(error))
            yield None
            return
        try:
            yield file
        finally:
            with suppress(NotFound):  # the other key may have deleted it
                self._first.bulk.delete_file(file.id)

    def _files(self, file: FileObject) -> None:
        bulk = self._other.bulk
        self._unlisted("list the file", file.id, lambda: (each.id for each in islice(bulk.files(), _FILES)))
        self._refused("look at the file", lambda: bulk.file(file.id))
        self._refused("read the file", lambda: bulk.download(file.id, BytesIO(), len(self._content)))
        self._refused("list files behind the file", lambda: list(islice(bulk.files(after=file.id), 1)))
        self._refused("begin a job with the file", lambda: self._begin(file.id))
        self._refused("delete the file", lambda: bulk.delete_file(file.id))
        kept = BytesIO()
        try:
            self._first.bulk.download(file.id, kept, len(self._content))
            self._note("change the file", "held" if kept.getvalue() == self._content else "broken")
        except NotFound:
            self._note("change the file", "broken", "its owner no longer has it")

    def _begin(self, file_id: str, idempotency_key: str | None = None) -> BatchObject:
        model = self._other.model()
        return self._other.bulk.begin(
            file_id,
            idempotency_key=idempotency_key or f"isolation-test-{secrets.token_hex(16)}",
            max_cost_micros=0,
            fingerprint=model.fingerprint,
            hooks=NO_HOOKS,
        )

    def _jobs(self) -> None:
        try:
            jobs = list(islice(self._first.bulk.jobs(), _JOBS))
            theirs = {each.id for each in islice(self._other.bulk.jobs(), 10 * _JOBS)}
        except (KeyRefused, NotOffered) as error:
            self._note("jobs", "not tried", str(error))
            return
        if not jobs:
            self._note("jobs", "not tried", "the first key has none")
            return
        bulk = self._other.bulk
        self._note("list jobs", "broken" if theirs & {each.id for each in jobs} else "held")
        job, done = jobs[0], [each for each in jobs if each.status != "in_progress"]
        self._refused("look at a job", lambda: bulk.get(job.id))
        self._refused("read a job's receipts", lambda: list(bulk.receipts(job.id)))
        if output := next((each.output_file_id for each in jobs if each.output_file_id), None):
            self._refused("look at a job's answers", lambda: bulk.file(output))
        if done:  # one that has ended stays as it is
            self._refused("cancel a job", lambda: bulk.cancel(done[0].id))
        keys = [(each.metadata or {}).get(KEY_LABEL, "") for each in jobs]
        self._idempotency([key for key in keys if re.fullmatch("[!-~]{1,255}", key)])  # it may be anything

    def _idempotency(self, keys: Sequence[str]) -> None:
        """Ask for a job under an idempotency key that the first key has used, with a file of the other's."""
        what = "find a job by its idempotency key"
        if not keys:
            self._note(what, "not tried", "no job of the first key names its own")
            return
        file = self._other.bulk.send_file(BytesIO(self._content))
        try:
            job = self._begin(file.id, keys[0])
        except IdempotencyKeySpent as error:
            self._note(what, "broken", str(error))
        except (RequestRefused, SpendingStopped):  # it is another job to the vendor, and may cost nothing
            self._note(what, "held")
        else:
            is_own = job.input_file_id == file.id
            self._note(what, "held" if is_own else "broken")
            if is_own:
                self._other.bulk.cancel(job.id)
        finally:
            self._other.bulk.delete_file(file.id)

    def _history(self) -> None:
        """The ledger, usage, projects, keys and invoices, as far as the other key may read such things."""
        other, key_id, project = self._other, self._first.key_id or "", self.found.project

        def entries() -> Iterator[str]:
            head = other.head()
            after = 0 if head is None else max(0, head.claims.ledger_seq - _ENTRIES)
            for each in islice(other.ledger(after), _ENTRIES):
                if each.kind != SEALED:
                    yield from (each.key_id or "", each.project_id or DEFAULT_PROJECT)

        self._unlisted("read charges in the ledger", key_id, entries)
        self._unlisted("read the usage of the key", key_id, lambda: _groups(other, "key"))
        self._unlisted("list the key", key_id, lambda: _key_ids(other))
        if self._same_account:
            mine = project or DEFAULT_PROJECT
            self._unlisted("read the usage of the project", mine, lambda: _groups(other, "project"))
            self._unlisted("list the project", mine, lambda: (each.project for each in other.projects()))
            self._invoice()

    def _invoice(self) -> None:
        what = "read the account's invoice"
        try:
            self._other.usage()
        except KeyRefused as error:  # it reads nothing of the kind, whatever stands between the projects
            self._note(what, "not tried", str(error))
            return
        try:
            self._other.invoice(f"{datetime.now(UTC):%Y-%m}")
        except KeyRefused:
            self._note(what, "held")
        else:
            self._note(what, "broken", "it was answered")

    def _unlisted(self, what: str, mine: str, listed: Callable[[], Iterator[str]]) -> None:
        try:
            self._note(what, "broken" if mine in set(listed()) else "held")
        except (KeyRefused, NotOffered) as error:
            self._note(what, "not tried", str(error))

    def _refused(self, what: str, ask: Callable[[], object]) -> None:
        """Try something that has to be answered as if it were not there."""
        try:
            ask()
        except NotFound:
            self._note(what, "held")
        except (KeyRefused, NotOffered) as error:
            self._note(what, "not tried", str(error))
        except (RequestRefused, SpendingStopped) as error:  # for a reason of its own, so it was found
            self._note(what, "broken", str(error))
        else:
            self._note(what, "broken", "it was answered")

    def _note(self, what: str, outcome: Outcome, said: str = "") -> None:
        self.found.attempts.append(Attempt(what, outcome, said))


def _key_ids(vendor: VendorClient) -> Iterator[str]:
    keys = vendor.keys()
    return (each.key_id for each in keys)


def _groups(vendor: VendorClient, group_by: Literal["key", "project"]) -> Iterator[str]:
    return (each.group for each in vendor.usage(group_by).rows)
