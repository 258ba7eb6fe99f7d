"""Every command that a document shows runs as it is shown, with its placeholders filled.

Those of `client` buy and train, so they run up to that: all that they are given is read and checked.
"""

from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
from sqlalchemy import select, update

from client.cli.main import app
from shared import typer_commands
from tests.documents.test_commands import PAGES, fault, shown_commands, words_of
from tests.vendor_service.batches.bulk_books import BulkProcess
from tests.vendor_service.books import Books, opened_books
from tests.vendor_service.cli.command import Command
from vendor_service.accounts.keys import KeyTerms
from vendor_service.accounts.projects import ProjectTerms
from vendor_service.acts import invitations, keys, operators, prices, projects, receipts_keys, receivers
from vendor_service.acts.act import Act, ActContext, OperatorScope
from vendor_service.cli import declared
from vendor_service.clock import DAY
from vendor_service.console import sessions
from vendor_service.console.seal import Seal
from vendor_service.console.sessions import CUSTOMERS
from vendor_service.database.tables import Account, ConsoleSession
from vendor_service.money import payments
from vendor_service.money.orders import Order

# These serve, or print their help: there are other tests of both.
IN_BLOCKS = {
    line for page in PAGES for line, whole in shown_commands(page.read_text(encoding="utf-8")) if whole
}
NOT_RUN = ("vendor serve", "vendor COMMAND", "client --help")
_NAMED = {"former": "vendor accounts create", "me": "vendor keys create me"}


@dataclass
class Furnished:
    """Books with an account `acme` that has bought, and one of everything that a command can name."""

    books: Books
    order: Order
    context: ActContext

    @classmethod
    def of(cls, books: Books, command: str, keys_in: Path) -> "Furnished":
        """Furnish new ones, but for what the command makes; entry 17 of acme is a charge of last month."""
        order = books.open(credit_micros=10**9 if command.startswith("vendor top-up") else None)
        context = ActContext(books.database, books.clock, keys_in=keys_in, actor="os:test")
        with context.write() as act:
            name = next((each for each in ("former", "me") if command.startswith(_NAMED[each])), "acme")
            act.session.execute(update(Account).values(name=name))
            prices.name_currency(act, "EUR")
            if "--new" not in command:
                prices.set_price(act, "icon-clip", "image", 80, "research", new=True)
            if not command.startswith("vendor projects create"):
                projects.create(act, name, "search", ProjectTerms())
        for _ in range(17):
            books.buy(order, images=100)
        books.clock.advance(31 * DAY // 1_000_000)
        return cls(books, order, context)

    def named(self, word: str) -> str:
        """A thing that was made for the placeholder `word` of a command, or what is written for it."""
        if word == "RECEIPT":
            return self.books.buy(self.order).request_id
        if word == "KEY":
            return receipts_keys.rotate(self.context)[0].key
        if word == "BATCH":
            return (
                BulkProcess(self.books.database, self.books.clock, self.books.admission)
                .begin(self.order, (1, 0))
                .id
            )
        if word == "SESSION_ID":
            return self._session()
        if word == "CN-3":
            return self._credit_note()
        with self.context.write() as act:
            return str(self._made(act, word))

    def _credit_note(self) -> str:
        """The name of the third credit note of the account."""
        self.books.invoice(self.order)
        for seq in (1, 2, 3):
            with self.books.locked(self.order) as (session, account):
                payments.refund(session, account, seq, self.books.clock())
        return "CN-3"

    def _session(self) -> str:
        secret = self.books.key(self.order).secret_hash
        whose = {"account_id": self.order.account_id, "key_id": self.order.key_id, "secret_hash": secret}
        with self.context.write() as act:
            sessions.begin(act.session, Seal(b""), CUSTOMERS, act.now, **whose)
            act.session.flush()
            return act.session.scalars(select(ConsoleSession.id)).one()

    def _made(self, act: Act, word: str) -> Any:
        if word == "KEY_ID":
            return keys.issue(act, "acme", KeyTerms()).key_id
        if word == "TOKEN_ID":
            return operators.issue(act, "crm", [OperatorScope.READ]).token_id
        if word in ("ENDPOINT_ID", "EVENT_ID"):
            receiver = receivers.create(act, "https://example.com/hooks").endpoint_id
            return receiver if word == "ENDPOINT_ID" else receivers.send_test(act, receiver).event_id
        if word == "INVITATION_ID":
            return invitations.id_of(invitations.invite(act, "acme").link.partition("=")[2])
        return {"NAME": "acme", "ACCOUNT": "acme", "[ACCOUNT]": "acme"}.get(word, word)


@pytest.fixture
def vendor(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, in a folder of its own; whoever is asked agrees."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text('[[model]]\nid = "a"\nsource = "icon-clip"\ndefault = true\n')
    (tmp_path / "prices.txt").write_text("icon-clip image 0.0002\n")
    monkeypatch.setattr(declared, "confirm", lambda *_: None)
    monkeypatch.setenv("VENDOR_KEYS_IN", str(tmp_path / "keys"))
    return Command(capsys, monkeypatch)


def commands(program: str) -> list[str]:
    """The whole commands of a program in all documents, once each, in their order."""
    found = [
        line
        for page in PAGES
        for line, _ in shown_commands(page.read_text(encoding="utf-8"))
        if line.startswith(f"{program} ") and not line.startswith(NOT_RUN) and fault(line, whole=True) is None
    ]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("command", commands("vendor"))
def test_a_command_of_a_document_runs_as_it_is_shown(
    command: str, vendor: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = words_of(command.replace("/backups/", f"{tmp_path}/"))[1:]
    with opened_books(f"sqlite:///{tmp_path / 'tuition-vendor.db'}") as books:
        furnished = Furnished.of(books, command, tmp_path / "keys")
        monkeypatch.setattr("vendor_service.cli.books.system_clock", books.clock)
        code, _, err = vendor(*map(furnished.named, words))
    assert code == 0, err


@pytest.mark.parametrize("command", commands("client"))
def test_a_command_of_the_client_takes_what_a_document_gives_it(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    read = typer_commands._given
    taken = []

    def only_read(*given: Any) -> None:
        taken.append(read(*given))
        raise typer.Exit

    monkeypatch.setattr(typer_commands, "_given", only_read)
    words = [{"N": "5"}.get(each, each) for each in words_of(command.partition(" #")[0])[1:]]
    # A sentence may only name a command.
    with nullcontext() if command in IN_BLOCKS else suppress(typer.BadParameter):
        typer.main.get_command(app)(words, standalone_mode=False)
        assert taken
