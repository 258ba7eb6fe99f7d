"""Deliveries: signed as Standard Webhooks has it, tried again, by one process at a time, never inside."""

import ipaddress
import json
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from sqlalchemy import select
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.support.figures import holds
from tests.support.vendor_process import wait_until
from tests.vendor_service.books import Books, on_postgres, on_sqlite
from tests.vendor_service.local_vendor import LocalVendor
from tests.vendor_service.webhooks.receiver import Received, Receiver
from vendor_service.acts import receivers as acts
from vendor_service.acts.act import Act
from vendor_service.acts.receivers import DeliveryInfo, NewEndpoint
from vendor_service.audit import log
from vendor_service.clock import HOUR, SECOND, system_clock
from vendor_service.database.tables import (
    Account,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from vendor_service.errors import OperatorError, UsageError
from vendor_service.money.orders import Order
from vendor_service.run import vendor as running
from vendor_service.webhooks import dispatcher as delivering
from vendor_service.webhooks import events, sending
from vendor_service.webhooks.dispatcher import Dispatcher
from vendor_service.webhooks.events import EventKind
from vendor_service.webhooks.networks import networks
from vendor_service.webhooks.sending import Outcome, send

HERE = networks("127.0.0.0/8")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


def add(books: Books, url: str, *kinds: EventKind, account: str | None = None) -> NewEndpoint:
    with books.database.write() as session:
        return acts.create(Act(session, "os:test", books.clock), url, kinds, account)


def emit(books: Books, count: int = 1) -> None:
    """Have something happen."""
    for number in range(count):
        with books.database.write() as session:
            data = {"model": "icon-clip", "number": number}
            events.emit(session, EventKind.MODEL_DEPRECATED, None, data, books.clock())


def deliveries(books: Books) -> list[DeliveryInfo]:
    with books.database.read() as session:
        return acts.deliveries(Act(session, "os:test", books.clock))


def certificate(folder: Path) -> Path:
    """A file with a key and a certificate for 127.0.0.1 that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    now = datetime.now(UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(here, critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "receiver.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + made.public_bytes(Encoding.PEM))
    return file


def verified(received: Received, secret: str) -> Any:
    """What a receiver reads that uses the library of Standard Webhooks."""
    return Webhook(secret).verify(received.body, received.headers)


def test_an_event_is_delivered_as_the_specification_has_it(books: Books, receiver: Receiver) -> None:
    books.clock.now = system_clock()  # the library compares the time
    made = add(books, f"{receiver.url}hooks?a=1")
    dispatcher = Dispatcher(books.database, books.clock, HERE)
    emit(books)
    assert (dispatcher.once(), dispatcher.once()) == (1, 0)
    (first,) = receiver.received
    assert first.path == "/hooks?a=1"
    read = verified(first, made.secret)
    assert (read["type"], read["data"]) == ("model.deprecated", {"model": "icon-clip", "number": 0})
    assert read["timestamp"].endswith("Z")
    with pytest.raises(WebhookVerificationError):
        verified(Received(first.path, first.headers, first.body + b" "), made.secret)
    with books.database.write() as session:
        newer = acts.rotate(Act(session, "os:test", books.clock), made.endpoint_id, 60)
    for seconds, good, bad in ((0, [made.secret, newer.secret], []), (61, [newer.secret], [made.secret])):
        books.clock.advance(seconds)
        emit(books)
        dispatcher.once()
        for secret in good:
            assert verified(receiver.received[-1], secret)
        for secret in bad:
            with pytest.raises(WebhookVerificationError):
                verified(receiver.received[-1], secret)
    with books.database.read() as session:
        recorded = str([each.model_dump() for each in log.entries(session)])
    assert made.secret not in recorded
    assert newer.secret not in recorded
    assert {each.state for each in deliveries(books)} == {"delivered"}


@on_postgres
def test_of_two_rotations_at_once_the_later_one_keeps_the_earlier_secret(books: Books) -> None:
    made = add(books, "https://example.com/")
    with books.database.write() as session:
        row = session.get_one(WebhookEndpoint, made.endpoint_id)  # as it is before it is locked
        with books.database.write() as other:
            second = acts.rotate(Act(other, "os:test", books.clock), row.id, 60)
        third = acts.rotate(Act(session, "os:test", books.clock), row.id, 60)
    with books.database.read() as session:
        row = session.get_one(WebhookEndpoint, made.endpoint_id)
        assert (row.secret, row.former_secret) == (third.secret, second.secret)


def test_events_of_long_ago_are_deleted_unless_they_are_still_to_be_delivered(
    books: Books, receiver: Receiver
) -> None:
    add(books, receiver.url)
    dispatcher = Dispatcher(books.database, books.clock, HERE)
    emit(books)
    dispatcher.once()
    books.clock.advance(60 * 86_400)
    emit(books, 2)
    books.clock.advance(31 * 86_400)
    dispatcher.forget()
    assert len(deliveries(books)) == 2
    books.clock.advance(60 * 86_400)
    dispatcher.forget()  # those two were never sent
    assert [each.state for each in deliveries(books)] == ["pending"] * 2
    dispatcher.once()
    dispatcher.forget()
    with books.database.read() as session:
        for table in (WebhookEvent, WebhookDelivery, WebhookAttempt):
            assert session.scalars(select(table)).first() is None


@on_sqlite
def test_a_receiver_is_told_what_it_asked_for(books: Books, receiver: Receiver) -> None:
    one, other = books.open(quota=1), books.open(quota=1)
    add(books, f"{receiver.url}quota", EventKind.QUOTA, account=books.account(one).name)
    add(books, f"{receiver.url}invoice", EventKind.INVOICE_FINALIZED)
    for order in (one, other):
        books.buy(order)
    Dispatcher(books.database, books.clock, HERE).once()
    assert [each.path for each in receiver.received] == ["/quota"] * 3
    told = [json.loads(each.body)["data"] for each in receiver.received]
    assert {each["account"] for each in told} == {books.account(one).name}
    assert sorted(each["percent"] for each in told) == [50, 80, 100]


@on_sqlite
def test_a_failure_is_tried_again_later_and_a_redirect_is_one(books: Books, receiver: Receiver) -> None:
    made = add(books, receiver.url)
    dispatcher = Dispatcher(books.database, books.clock, HERE)
    emit(books)
    receiver.statuses.extend([500, 302])
    for seconds, status in ((0, 500), (5, 302)):
        books.clock.advance(seconds)
        assert dispatcher.once() == 1
        (told,) = deliveries(books)
        assert (told.state, told.last_status) == ("pending", status)
        assert dispatcher.once() == 0
    books.clock.advance(299)
    assert dispatcher.once() == 0
    books.clock.advance(1)
    assert dispatcher.once() == 1
    (told,) = deliveries(books)
    assert (told.state, told.attempts, told.last_status, told.next_at) == ("delivered", 3, 204, None)
    assert len(set(receiver.ids)) == 1
    assert {each.path for each in receiver.received} == {"/"}  # and not where the redirect leads
    receiver.statuses.extend([503] * 10)
    emit(books)
    while dispatcher.once() or deliveries(books)[0].state == "pending":
        books.clock.now += HOUR
    given_up = deliveries(books)[0]
    assert (given_up.state, given_up.attempts, given_up.last_status) == ("failed", 10, 503)
    with books.database.write() as session:
        acts.replay(Act(session, "os:test", books.clock), given_up.event_id, made.endpoint_id)
    assert dispatcher.once() == 1
    assert deliveries(books)[0].state == "delivered"
    assert receiver.ids.count(given_up.event_id) == 11


@on_sqlite
def test_nothing_is_sent_or_forgotten_while_the_clock_is_wrong(books: Books, receiver: Receiver) -> None:
    asked: list[bool] = []

    def is_right() -> bool:
        asked.append(books.watch.fault is None)
        return asked[-1]

    add(books, receiver.url)
    dispatcher = Dispatcher(books.database, books.clock, HERE, is_right)
    emit(books)
    assert dispatcher.once() == 1
    emit(books)
    books.clock.step(900 * 86_400)
    dispatcher.start(0.01)
    wait_until(lambda: len(asked) > 20, seconds=20)
    assert (len(receiver.received), len(deliveries(books))) == (1, 2)
    books.clock.step(-900 * 86_400)
    wait_until(lambda: len(receiver.received) == 2, seconds=20)
    dispatcher.stop()
    assert len(deliveries(books)) == 2


@on_sqlite
def test_a_try_that_fails_as_the_clock_goes_wrong_is_repeated_once_it_is_right(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(books, "https://example.com/")
    emit(books)

    def failing(*_: Any) -> Outcome:
        books.clock.step(900 * 86_400)
        return Outcome(500, None, 1)

    monkeypatch.setattr(delivering, "send", failing)
    dispatcher = Dispatcher(books.database, books.clock, HERE, lambda: books.watch.fault is None)
    assert dispatcher.once() == 1
    books.clock.step(-900 * 86_400)
    assert dispatcher.once() == 1


@on_sqlite
def test_a_receiver_that_is_gone_or_disabled_is_told_no_more(books: Books, receiver: Receiver) -> None:
    made = add(books, receiver.url)
    dispatcher = Dispatcher(books.database, books.clock, HERE)
    receiver.statuses.append(410)
    emit(books, 2)
    dispatcher.once()
    books.clock.now += HOUR
    emit(books)
    dispatcher.once()
    assert len(receiver.received) <= 2  # two were under way at once
    event_id = deliveries(books)[0].event_id
    with pytest.raises(OperatorError, match="is disabled"), books.database.write() as session:
        acts.replay(Act(session, "os:test", books.clock), event_id, made.endpoint_id)


@on_sqlite
def test_an_event_is_sent_again_to_no_receiver_of_another_account(books: Books) -> None:
    ours, theirs = (books.account(books.open()) for _ in range(2))
    added = {
        whose: add(books, f"https://{whose}.example/", account=whose) for whose in (ours.name, theirs.name)
    }
    with books.database.write() as session:
        events.emit(session, EventKind.QUOTA, session.get_one(Account, ours.id), {}, books.clock())
        events.emit(session, EventKind.MODEL_DEPRECATED, None, {}, books.clock())
    of_all = add(books, "https://vendor.example/")
    with books.database.read() as session:
        found = {each.kind: each.id for each in session.scalars(select(WebhookEvent))}

    def replay(kind: EventKind, made: NewEndpoint) -> str:
        with books.database.write() as session:
            act = Act(session, "os:test", books.clock)
            return acts.replay(act, found[kind], made.endpoint_id).state

    assert replay(EventKind.QUOTA, added[ours.name]) == "pending"
    assert replay(EventKind.QUOTA, of_all) == replay(EventKind.MODEL_DEPRECATED, of_all) == "pending"
    assert replay(EventKind.MODEL_DEPRECATED, added[theirs.name]) == "pending"  # it is of all accounts
    with pytest.raises(OperatorError, match="is not one of them"):
        replay(EventKind.QUOTA, added[theirs.name])
    assert {each.endpoint_id for each in deliveries(books) if each.event == EventKind.QUOTA} == {
        added[ours.name].endpoint_id,
        of_all.endpoint_id,
    }


def test_receivers_of_an_account_that_never_answer_hold_up_no_other_account(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    many, few = books.open(), books.open()
    for order, receivers in ((many, 4), (few, 1)):
        for number in range(receivers):
            name = books.account(order).name
            add(books, f"https://{name}.example/{number}", EventKind.QUOTA, account=name)
    slow = f"https://{books.account(many).name}.example/"
    waiting: list[str] = []
    told: list[str] = []
    answer = threading.Event()

    def sent(url: str, *_: Any) -> Outcome:
        if url.startswith(slow):
            waiting.append(url)
            answer.wait(60)
        else:
            told.append(url)
        return Outcome(204, None, 1)

    def happen(order: Order, count: int) -> None:
        with books.locked(order) as (session, account):
            for _ in range(count):
                events.emit(session, EventKind.QUOTA, account, {}, books.clock())

    monkeypatch.setattr(delivering, "send", sent)
    happen(many, 12)
    books.clock.advance(1)
    happen(few, 6)
    dispatcher = Dispatcher(books.database, books.clock)
    dispatcher.start(0.05)
    try:
        wait_until(lambda: len(told) == 6 and len(waiting) == 8, 20)
        happen(few, 6)
        wait_until(lambda: len(told) == 12, 20)
        assert len(waiting) == 8
        assert max(Counter(waiting).values()) <= 4
        answer.set()
        wait_until(lambda: {each.state for each in deliveries(books)} == {"delivered"}, 60)
    finally:
        answer.set()
        dispatcher.stop()
    assert (len(waiting), len(told)) == (48, 12)


@on_sqlite
def test_what_a_disabled_receiver_was_to_be_sent_has_failed_and_is_not_waited_for(books: Books) -> None:
    made = add(books, "https://gone.example/")
    emit(books, 20)
    with books.database.write() as session:
        acts.disable(Act(session, "os:test", books.clock), made.endpoint_id)
    dispatcher = Dispatcher(books.database, books.clock)
    dispatcher.start(3600.0)
    try:
        wait_until(lambda: {each.state for each in deliveries(books)} == {"failed"}, 20)
    finally:
        dispatcher.stop()


def test_several_processes_deliver_each_event_once(books: Books, receiver: Receiver) -> None:
    add(books, receiver.url)
    emit(books, 24)
    processes = [Dispatcher(books.database, books.clock, HERE) for _ in range(3)]

    def work(dispatcher: Dispatcher) -> None:
        while any(each.state == "pending" for each in deliveries(books)):
            dispatcher.once()

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(work, processes))
    assert len(receiver.ids) == len(set(receiver.ids)) == 24


def test_what_a_process_had_in_hand_that_died_is_sent_when_its_lease_is_over(
    books: Books, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(books, receiver.url)
    emit(books)
    dies = Dispatcher(books.database, books.clock, HERE)
    monkeypatch.setattr(dies, "_deliver", lambda _: None)
    assert dies.once() == 1
    lives = Dispatcher(books.database, books.clock, HERE)
    assert lives.once() == 0
    books.clock.now += 91 * SECOND
    assert lives.once() == 1
    assert (deliveries(books)[0].state, deliveries(books)[0].attempts) == ("delivered", 2)


@on_sqlite
def test_an_event_for_which_the_system_has_no_thread_takes_no_sender_away(
    books: Books, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(delivering, "_AT_ONCE", 1)
    add(books, receiver.url)
    emit(books)
    dispatcher = Dispatcher(books.database, books.clock, HERE)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", no_room)
        with pytest.raises(RuntimeError, match="new thread"):
            dispatcher.once()
    books.clock.now += 91 * SECOND
    assert dispatcher.once() == 1
    assert (deliveries(books)[0].state, deliveries(books)[0].attempts) == ("delivered", 2)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1"),
        *("[::1]", "[fd00::1]", "[fe80::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"),
        *("[fec0::1]", "[::7f00:1]", "[5f00::1]", "[3fff::1]", "[2001::1]", "[2001:db8::1]", "[ff0e::1]"),
        *("localhost", "2130706433", "0x7f.1"),
        # What clouds answer their machines at, as it is and in forms of IPv6.
        *("192.0.0.192", "168.63.129.16", "100.100.100.200", "[fd00:ec2::254]", "[::ffff:168.63.129.16]"),
        *("[2002:a83f:8110::1]", "[64:ff9b::a83f:8110]", "[64:ff9b:1::a83f:8110]", "[::168.63.129.16]"),
        *("[2001:0:4136:e378:8000:63bf:57c0:7eef]", "2822734096", "192.0.0.9", "198.18.0.1", "192.88.99.1"),
        *("255.255.255.255", "203.0.113.1", "[2001:20::1]", "[2001:1::1]"),
    ],
)
def test_a_receiver_on_a_private_network_is_refused(host: str) -> None:
    outcome = send(f"https://{host}:9/", b"{}", {}, [])
    assert outcome.status is None
    assert "not on the public network" in (outcome.error or "")


def test_addresses_of_the_public_network_are_asked_and_no_others_whatever_python_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for version in (ipaddress.IPv4Address, ipaddress.IPv6Address):
        monkeypatch.setattr(version, "is_global", True)  # as of 192.0.0.192 before Python 3.11.10
    for text, asked in (
        *((each, True) for each in ("1.1.1.1", "93.184.215.14", "168.63.129.17", "2606:4700::1111")),
        *((each, False) for each in ("192.0.0.192", "10.0.0.1", "169.254.169.254", "224.0.0.1", "2001::1")),
        *((each, False) for each in ("::ffff:1.1.1.1", "fd00:ec2::254", "ff0e::1", "fe80::1", "::1")),
    ):
        assert sending._is_public(ipaddress.ip_address(text)) == asked, text


def test_a_name_is_resolved_once_and_what_was_resolved_is_asked(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    resolve = socket.getaddrinfo

    def rebinding(host: str, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        if host == "rebinding.example":
            host = "127.0.0.1" if asked.count(host) == 1 else "127.0.0.2"
        return resolve(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    port = int(receiver.url.rpartition(":")[2].strip("/"))
    outcome = send(f"http://rebinding.example:{port}/", b"{}", {}, HERE)
    assert (outcome.status, asked.count("rebinding.example")) == (204, 1)
    assert receiver.received[0].headers["host"] == f"rebinding.example:{port}"
    asked.clear()
    assert "not on the public network" in (send(f"http://rebinding.example:{port}/", b"", {}, []).error or "")


def test_plain_http_is_for_allowed_networks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    public = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: public)
    assert "use https" in (send("http://example.com/", b"", {}, []).error or "")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_receiver_that_answers_a_byte_now_and_then_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setattr(sending, "_MOST_SECONDS", 2.0)
    certified = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certified))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certified)
    with socket.create_server(("127.0.0.1", 0)) as slow, ThreadPoolExecutor(1) as threads:

        def drip() -> int:
            accepted, _ = slow.accept()
            received = b""
            with tls.wrap_socket(accepted, server_side=True) if scheme == "https" else accepted as connection:
                for _ in range(100):
                    try:
                        connection.sendall(b"H")
                        connection.settimeout(0.1)
                        more = connection.recv(4096)
                    except TimeoutError:
                        continue
                    except OSError:
                        break
                    if not more:
                        break
                    received += more
            return len(received)

        dripping = threads.submit(drip)
        outcome = send(f"{scheme}://127.0.0.1:{slow.getsockname()[1]}/", b"{}", {}, HERE)
        assert dripping.result() > 0
    assert outcome.status is None
    assert holds(outcome.milliseconds, 5000, "ms")


def test_a_name_that_is_looked_up_slowly_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_MOST_SECONDS", 0.5)
    answer = threading.Event()

    def late(*_: object, **__: object) -> list[Any]:
        answer.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", late)
    try:
        outcome = send("https://slow.example/", b"{}", {}, HERE)
    finally:
        answer.set()
    assert outcome.error == "TimeoutError: the look-up of slow.example timed out"
    assert holds(outcome.milliseconds, 5000, "ms")


def test_look_up_connections_and_answer_share_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_MOST_SECONDS", 2.0)
    waits: list[float] = []

    def two(*_: object, **__: object) -> list[Any]:
        time.sleep(0.5)
        return [(None, None, 6, "", (host, 80)) for host in ("127.0.0.2", "127.0.0.1")]

    def late(address: tuple[str, int], seconds: float) -> socket.socket:
        waits.append(seconds)
        time.sleep(0.5)
        if address[0] == "127.0.0.2":
            raise TimeoutError("timed out")
        connected = socket.socket()
        connected.settimeout(seconds)
        connected.connect(silent.getsockname())
        return connected

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(socket, "getaddrinfo", two)
        monkeypatch.setattr(socket, "create_connection", late)
        outcome = send("http://slow.example/", b"{}", {}, HERE)
        monkeypatch.setattr(sending, "_MOST_SECONDS", 0.7)
        too_late = send("http://slow.example/", b"{}", {}, HERE)
    assert (outcome.status, len(waits)) == (None, 3)
    first, second, third = waits
    assert second < first < 1.6
    assert third < 0.3
    assert 1500 < outcome.milliseconds < 2400
    assert too_late.error == "TimeoutError: timed out"


@pytest.mark.parametrize(
    "url",
    ["ftp://example.com", "https://", "https://user@example.com/", "https://example.com/#a", "https://a b/"],
)
@on_sqlite
def test_a_url_that_cannot_be_is_refused(books: Books, url: str) -> None:
    with pytest.raises(UsageError, match="https://HOST/PATH"), books.database.write() as session:
        acts.create(Act(session, "os:test", books.clock), url)


@on_sqlite
def test_a_receiver_that_a_customer_added_is_not_asked_on_a_private_network(
    books: Books, receiver: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the customer reads the same of a name that is private and of one that is not known."""
    resolve = socket.getaddrinfo

    def known_here(host: str, *rest: Any, **more: Any) -> Any:
        if host == "nobody.internal":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve("127.0.0.1" if host == "postgres.internal" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", known_here)
    order = books.open(quota=1)
    name = books.account(order).name
    theirs = [f"{receiver.url}theirs", "https://postgres.internal/", "https://nobody.internal/"]
    for url in theirs:
        made = add(books, url, EventKind.QUOTA, account=name)
        with books.database.write() as session:
            session.get_one(WebhookEndpoint, made.endpoint_id).added_by = "customer"
    ours = add(books, f"{receiver.url}ours", EventKind.QUOTA, account=name)
    books.buy(order)
    dispatcher = Dispatcher(books.database, books.clock, HERE)
    while dispatcher.once():  # an account has its turn for some of them at a time
        pass
    assert [each.path for each in receiver.received] == ["/ours"] * 3
    refused = [each for each in deliveries(books) if each.endpoint_id != ours.endpoint_id]
    assert len(refused) == 3 * len(theirs)
    told = {each.last_error for each in refused}
    assert told == {"no address on the public network was found for this host"}
    assert "postgres.internal is 127.0.0.1, which is not on the public network" in caplog.text
    assert "Name or service not known" in caplog.text


def test_a_vendor_that_runs_tells_what_its_customers_use(tmp_path: Path, receiver: Receiver) -> None:
    with LocalVendor(tmp_path, webhook_private_networks="127.0.0.0/8") as vendor:
        key = vendor.key(quota=4)
        with vendor.books.write() as session:
            acts.create(Act(session, "os:test", vendor.clock), receiver.url)
        for _ in range(2):
            assert vendor.embed(key, {"text": "a cat"}).status_code == 200
        wait_until(lambda: bool(receiver.received), seconds=20)
    (told,) = receiver.received
    assert json.loads(told.body)["data"]["percent"] == 50


def test_a_vendor_that_runs_sends_nothing_while_its_clock_is_wrong(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_DISPATCH_SECONDS", 0.05)
    with LocalVendor(tmp_path, webhook_private_networks="127.0.0.0/8") as vendor:
        now = vendor.clock()
        vendor.clock.step(900 * 86_400)
        with vendor.books.write() as session:
            acts.create(Act(session, "os:test", vendor.clock), receiver.url)
            events.emit(session, EventKind.MODEL_DEPRECATED, None, {}, now)
        time.sleep(1.0)
        assert receiver.received == []
        vendor.clock.step(-900 * 86_400)
        wait_until(lambda: bool(receiver.received), seconds=20)
