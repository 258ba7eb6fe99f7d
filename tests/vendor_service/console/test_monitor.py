"""What the console says of the vendor now is what the dashboard and the alerts say of the same numbers."""

import re
from collections.abc import Iterator
from html import unescape

import pytest

from tests.docker.test_observability import panels, rules
from tests.vendor_service.console.furnished import CAT, admin_of, open_customer
from tests.vendor_service.console.promql import Vector, evaluate
from tests.vendor_service.console.visits import Visit
from tests.vendor_service.local_vendor import LocalVendor, image_input
from vendor_service.accounts.accounts import Terms
from vendor_service.acts.act import OperatorScope
from vendor_service.clock import to_datetime
from vendor_service.console.operators import alerts, scrapes
from vendor_service.console.operators.monitor import MetricsClient, Monitor, Now
from vendor_service.money import spending

SECONDS = 20.0


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalVendor]:
    with LocalVendor(tmp_path_factory.mktemp("vendor")) as local:
        yield local


def told(vendor: LocalVendor) -> str:
    return vendor.http.get("/metrics").text


@pytest.fixture(scope="module")
def scraped(vendor: LocalVendor) -> tuple[str, str, Now]:
    """What `/metrics` said before and after some trade, and what the monitor makes of it."""
    key = vendor.key(quota=40)
    vendor.embed(key, CAT)
    before = told(vendor)
    for number in range(1, 6):
        texts = [{"text": f"a photo of {number} and {each}"} for each in range(number)]
        vendor.embed(key, *texts, image_input())
    vendor.embed(key, *([CAT] * 30))
    vendor.embed(key, {"image": "AAAA"})
    after = told(vendor)
    monitor = Monitor(None)
    monitor.take(scrapes.read(before, 100.0))
    monitor.take(scrapes.read(after, 100.0 + SECONDS))
    return before, after, monitor.points()[-1]


@pytest.mark.parametrize(
    ("title", "of_console", "of_vector"),
    [
        ("Queries per second", lambda now: now.queries_per_second, lambda found: found.only),
        ("Slowest 1% of requests", lambda now: now.p99_seconds, lambda found: found.only),
        ("Latency", lambda now: now.p50_seconds, lambda found: found.only),
        ("Requests refused", lambda now: now.refused_share, lambda found: found.only),
        ("Requests being answered", lambda now: now.in_flight, lambda found: found.only),
        ("Queue", lambda now: now.queue, lambda found: sum(found.values.values())),
        ("Batch size", lambda now: now.batch["text"], lambda found: found.of(kind="text")),
        ("Batch size", lambda now: now.batch["image"], lambda found: found.of(kind="image")),
        ("How busy the devices are", lambda now: now.busy, lambda found: found.only),
        ("Memory", lambda now: now.memory_bytes, lambda found: found.only),
        ("Revenue per hour", lambda now: now.revenue_micros_per_hour / 1e6, lambda found: found.only),
        (
            "Refusals by code",
            lambda now: dict(now.refusals)["quota_exhausted"],
            lambda found: found.of(code="quota_exhausted"),
        ),
    ],
)
def test_the_console_and_the_dashboard_agree(
    scraped: tuple[str, str, Now], title: str, of_console: object, of_vector: object
) -> None:
    before, after, now = scraped
    (panel,) = (each for each in panels() if each["title"] == title)
    found: Vector = evaluate(panel["targets"][0]["expr"], before, after, SECONDS)
    of_grafana = of_vector(found)  # type: ignore[operator]
    assert of_console(now) == pytest.approx(of_grafana)  # type: ignore[operator]
    assert of_grafana or title == "Queue"


def test_money_is_the_same_in_the_books_on_the_page_and_on_the_dashboard(vendor: LocalVendor) -> None:
    customer = open_customer(vendor, "acme", Terms(quota=100))
    before, earned = told(vendor), _charged(vendor)
    for _ in range(3):
        vendor.embed(customer.key, CAT, image_input())
    after = told(vendor)
    (revenue,) = (each for each in panels() if each["title"] == "Revenue, last 24 hours")
    in_grafana = evaluate(revenue["targets"][0]["expr"], before, after, SECONDS).only
    assert in_grafana == pytest.approx((_charged(vendor) - earned) / 1e6) == pytest.approx(0.00036)
    (by_account,) = (each for each in panels() if each["title"] == "Revenue by account")
    of_acme = evaluate(by_account["targets"][0]["expr"], before, after, SECONDS).of(account="acme")
    with admin_of(vendor) as admin:
        visit = Visit(admin.http, "/operator")
        visit.sign_in(token=admin.tokens[OperatorScope.READ])
        page = unescape(visit.page("/accounts/acme"))
        now = visit.page()
        health = visit.page("/health")
    spent = re.search(r'Spent this period</div><div class="figure">([\d.]+)', page)
    assert spent is not None
    assert float(spent[1]) == pytest.approx(of_acme) == pytest.approx(0.00036)
    assert f'Charged today</div><div class="figure">{_charged(vendor) / 1e6:.6f}'.rstrip("0") in now
    assert ">ready<" in health
    assert "act now" not in health


def _charged(vendor: LocalVendor) -> int:
    today = to_datetime(vendor.clock()).date()
    with vendor.books.read() as session:
        (spent,) = spending.by_day(session, None, today, today)
    return spent.charged_micros


def test_the_alerts_are_those_of_prometheus() -> None:
    ours = {each.name: each.severity for each in alerts.ALERTS}
    assert ours == {rule["alert"]: rule["labels"]["severity"] for rule in rules()}


QUIET = """\
tuition_refusals_total{code="not_ready"} 1
tuition_refusals_total{code="overloaded"} 0
tuition_refusals_total{code="internal_error"} 0
tuition_requests_total{method="POST",route="/embed",status="200"} 100
tuition_billing_total{outcome="expired"} 3
tuition_queue_wait_seconds_bucket{kind="image",model="icon-clip",le="1.0"} 10
tuition_queue_wait_seconds_bucket{kind="image",model="icon-clip",le="5.0"} 10
tuition_queue_wait_seconds_bucket{kind="image",model="icon-clip",le="+Inf"} 10
tuition_ledger_faulty_accounts 0
tuition_audit_log_faulty 0
tuition_ledger_verified_timestamp_seconds 0
tuition_gpu_memory_bytes{device="cuda:0",state="reserved"} 10
tuition_gpu_memory_bytes{device="cuda:0",state="total"} 100
"""
NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("name", "later"),
    [
        ("VendorNotReady", 'tuition_refusals_total{code="not_ready"} 2'),
        ("QueueWait", 'tuition_queue_wait_seconds_bucket{kind="image",model="icon-clip",le="5.0"} 20'),
        ("Overloaded", 'tuition_refusals_total{code="overloaded"} 50'),
        ("InternalErrors", 'tuition_refusals_total{code="internal_error"} 1'),
        ("LedgerFaulty", "tuition_ledger_faulty_accounts 2"),
        ("AuditLogFaulty", "tuition_audit_log_faulty 1"),
        ("LedgerNotVerified", f"tuition_ledger_verified_timestamp_seconds {NOW - 4 * 86_400}"),
        ("LedgerNotVerified", f"process_start_time_seconds {NOW - 4 * 86_400}"),
        (None, f"process_start_time_seconds {NOW - 2 * 86_400}"),  # the first audit of a large ledger
        ("HoldsExpire", 'tuition_billing_total{outcome="expired"} 4'),
        ("GpuMemory", 'tuition_gpu_memory_bytes{device="cuda:0",state="reserved"} 96'),
        (None, 'tuition_requests_total{method="POST",route="/embed",status="200"} 200'),
    ],
)
def test_each_alert_says_what_is_wrong_and_nothing_else_does(name: str | None, later: str) -> None:
    series = later.rpartition(" ")[0]
    changed = [line for line in QUIET.splitlines() if not line.startswith(f"{series} ")]
    if name == "QueueWait":
        changed = [line.replace('le="+Inf"} 10', 'le="+Inf"} 20') for line in changed]
    if name == "Overloaded":
        changed = [line.replace('status="200"} 100', 'status="200"} 200') for line in changed]
    monitor = Monitor(None)
    monitor.take(scrapes.read(QUIET, 100.0))
    monitor.take(scrapes.read("\n".join([*changed, later]) + "\n", 130.0))
    firing = [each.alert.name for each in alerts.states(monitor, NOW) if each.message]
    assert firing == ([] if name is None else [name])


def saying(before: str, after: str) -> dict[str, str]:
    """What the alerts say, by name, after these two scrapes."""
    monitor = Monitor(None)
    monitor.take(scrapes.read(before, 100.0))
    monitor.take(scrapes.read(after, 130.0))
    return {each.alert.name: each.message for each in alerts.states(monitor, NOW) if each.message}


def test_workers_on_one_device_share_its_memory() -> None:
    told = "".join(
        f'tuition_gpu_memory_bytes{{device="cuda:0",state="{state}",worker="{worker}"}} {number}\n'
        for worker in (1, 2)
        for state, number in (("reserved", 48), ("total", 100))
    )
    assert saying(told, told) == {"GpuMemory": "the vendor has taken 96% of cuda:0"}


def test_a_model_that_is_waited_for_is_told_beside_one_that_is_not() -> None:
    before, after = (
        "".join(
            f'tuition_queue_wait_seconds_bucket{{kind="image",model="{model}",le="{bound}"}} {count * each}\n'
            for model, counts in (("busy", (0, 10, 10)), ("quick", (1000, 1000, 1000)))
            for bound, count in zip(("1.0", "5.0", "+Inf"), counts, strict=True)
        )
        for each in (0, 1)
    )
    assert saying(before, after) == {"QueueWait": "5% of the image queries wait more than 4.8 s for busy"}


def test_a_worker_that_misses_a_scrape_does_not_count_all_it_ever_did_again() -> None:
    first, second, second_failed = (
        f'tuition_refusals_total{{code="{code}",worker="{worker}"}} {number}\n'
        for code, worker, number in (
            ("internal_error", 0, 37), ("not_ready", 1, 0), ("internal_error", 1, 2)
        )
    )  # fmt: skip
    assert saying(second, first + second) == {}
    # A series that is new of a worker that was there began at 0.
    failed = {"InternalErrors": "2 requests failed in a way that nobody foresaw"}
    assert saying(second, first + second + second_failed) == failed


def test_a_vendor_that_does_not_answer_is_away_and_comes_back(vendor: LocalVendor) -> None:
    now = [0.0]
    line = MetricsClient("http://127.0.0.1:9", None)
    monitor = Monitor(line, lambda: now[0])
    monitor.refresh()
    assert "does not answer" in (monitor.away or "")
    assert monitor.is_ready()[0] is False
    assert [each.alert.name for each in alerts.states(monitor, NOW) if each.message] == ["VendorDown"]
    monitor._line = MetricsClient(f"http://127.0.0.1:{vendor.port}", None)
    for now[0] in (2.0, 2.5, 4.0):
        monitor.refresh()
    assert (monitor.away, len(monitor.points()), monitor.is_ready()) == (None, 2, (True, "ready"))


def test_a_monitor_keeps_no_more_than_a_quarter_of_an_hour() -> None:
    monitor = Monitor(None)
    for at in range(0, 4000, 2):
        monitor.take(scrapes.read(QUIET, float(at)))
    assert len(monitor._kept) < 130
    span = monitor.span(15 * 60.0)
    assert span is not None
    assert 14 * 60 < span.seconds <= 16 * 60
