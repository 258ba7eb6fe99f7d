"""The vendor of a command, and the teacher that it sells."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from client.errors import KeyRefused, UsageError, VendorUnreachable
from client.options.vendor import BulkOptions, PurchaseOptions, VendorOptions
from client.progress import ProgressListener
from client.purchase.buyer import Bulk, Buyer
from client.purchase.identification import identify
from client.runs.folder import RunFolder
from client.runs.storage import Storage
from client.vendors.registry import connect
from client.vendors.teachers.tuition import VendorClient
from client.vendors.tracing import Traces, find_traces
from client.vendors.vendor import Vendor
from shared.hosts import is_loopback


class Connection(Storage):
    """Where a command buys, and where it keeps what it bought.

    Attributes:
        options: name the vendor, its key and the cache.
    """

    def __init__(self, options: VendorOptions, progress: ProgressListener | None) -> None:
        super().__init__(options, progress)
        self.options = options

    @contextmanager
    def vendor(self) -> Iterator[VendorClient]:
        """The vendor.

        Raises:
            UsageError: the key's file cannot be read, or there is no such URL.
        """
        with VendorClient(self.options.vendor, self._api_key(), on_wait=self.display.note) as client:
            yield client

    @contextmanager
    def teacher(
        self,
        *,
        run_id: str,
        budget: int | None,
        run: RunFolder | None = None,
        fingerprint: str | None = None,
    ) -> Iterator[Buyer]:
        """The teacher of a run, within a budget of queries; the options cap the money.

        Where no model is named, it is the one of the `fingerprint`, or that with which the `run` began, if
        it is still sold; otherwise the vendor's default. A `run` that has bought goes on without a vendor
        that is away, or that no longer knows its key, if the cache has what it needs.
        """
        options = self.options
        max_spend_micros = options.max_spend_micros if isinstance(options, PurchaseOptions) else None
        with _open_traces() as traces, self._any_vendor(traces) as client, self.cache() as cache:
            if max_spend_micros is not None and not client.states_prices:
                raise UsageError(
                    f"A vendor that speaks {options.protocol} states no prices, so --max-spend cannot be "
                    "kept: cap the queries with --budget."
                )
            before = None if run is None else run.began_with
            known = None if before is None else before.fingerprint
            try:
                model = identify(client, cache, options.model, fingerprint=fingerprint or known)
            except (VendorUnreachable, KeyRefused) as error:
                if run is None or before is None or not run.purchase.exists():
                    raise
                self.display.note(f"{error} Going on with what was bought.")
                model = before
            at_bulk_prices = isinstance(options, BulkOptions) and options.batch
            if at_bulk_prices and client.bulk is None:
                raise UsageError(
                    f"A vendor that speaks {options.protocol} has no bulk jobs: leave --batch out."
                )
            waits = not isinstance(options, BulkOptions) or options.wait
            yield Buyer(
                client,
                cache,
                model=model,
                run_id=run_id,
                budget=budget,
                max_spend_micros=max_spend_micros,
                traces=traces,
                say=self.display.note,
                bulk=Bulk(at_bulk_prices, waits),
            )

    @contextmanager
    def _any_vendor(self, traces: Traces | None) -> Iterator[Vendor]:
        options, say = self.options, self.display.note
        headers = dict if traces is None else traces.headers
        with connect(
            options.protocol, options.vendor, self._api_key(), on_wait=say, trace_headers=headers
        ) as vendor:
            yield vendor

    def _api_key(self) -> str | None:
        options = self.options
        key = options.api_key.get_secret_value() if options.api_key else None
        if options.api_key_file is not None:
            try:
                key = options.api_key_file.read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(
                    f"The API key cannot be read from {options.api_key_file}: {error}."
                ) from error
        if key and _is_readable_on_the_way(options.vendor):
            self.display.note_once(
                f"Warning: {options.vendor} is plain http, so the API key can be read by everybody on the "
                "way to it. Give an https:// address with --vendor, or a tunnel to this machine; then ask "
                "the vendor for another key."
            )
        return key


def _is_readable_on_the_way(url: str) -> bool:
    """Whether what is sent there leaves this machine unencrypted."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False  # it is no address, and refused as such
    if "@" in parts.netloc:
        return False  # refused as well
    return parts.scheme.lower() == "http" and not is_loopback(parts.hostname or "")


@contextmanager
def _open_traces() -> Iterator[Traces | None]:
    traces = find_traces()
    try:
        yield traces
    finally:
        if traces is not None:
            traces.close()
