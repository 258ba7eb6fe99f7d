"""The vendor of a command, and the teacher that it sells."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from client.cache.cache import EmbeddingCache
from client.errors import KeyRefused, UsageError, VendorUnreachable
from client.options.vendor import BulkOptions, PurchaseOptions, VendorOptions
from client.progress import ProgressListener
from client.purchase.buyer import Bulk, Buyer
from client.purchase.identification import identify
from client.runs.folder import RunFolder
from client.runs.storage import Storage
from client.vendors.declaration import Declaration
from client.vendors.teachers.tuition import VendorClient
from client.vendors.tracing import Traces, find_traces
from client.vendors.vendor import Vendor
from shared.embeddings import ModelCard
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
        options = self.options
        if not options.asked.is_tuition:
            raise UsageError(f"Only a Tuition vendor answers this, and not --teacher {options.asked.name}.")
        url = options.vendor or VendorClient.declares.address()
        with VendorClient(url, self._api_key(url), on_wait=self.display.note) as client:
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
            if max_spend_micros is not None and not client.knows_prices(options.asked.model_name):
                raise UsageError(
                    f"{client.declares.title} states no prices, so --max-spend cannot be kept: cap the "
                    "queries with --budget, or say with --price what they cost."
                )
            model = self._identify(client, cache, run, fingerprint)
            at_bulk_prices = isinstance(options, BulkOptions) and options.batch
            if at_bulk_prices and client.bulk is None:
                raise UsageError(f"{client.declares.title} has no bulk jobs: leave --batch out.")
            self._warn(client, model)
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

    def _identify(
        self, client: Vendor, cache: EmbeddingCache, run: RunFolder | None, fingerprint: str | None
    ) -> ModelCard:
        """The model that is bought from; that of a run that has bought, where the vendor does not answer."""
        before = None if run is None else run.began_with
        known = None if before is None else before.fingerprint
        try:
            return identify(client, cache, self.options.asked.model_name, fingerprint=fingerprint or known)
        except (VendorUnreachable, KeyRefused) as error:
            if run is None or before is None or not run.purchase.exists():
                raise
            self.display.note(f"{error} Going on with what was bought.")
            return before

    def _warn(self, vendor: Vendor, model: ModelCard) -> None:
        """Say once what a vendor cannot promise."""
        prices = model.prices if vendor.knows_prices(model.id) else None
        said = vendor.declares.warnings(prices, of_user=bool(self.options.price))
        if said:
            self.display.note_once(" ".join(said))

    @contextmanager
    def _any_vendor(self, traces: Traces | None) -> Iterator[Vendor]:
        options = self.options
        teacher, url = options.asked, options.address
        declares = teacher.declares()
        is_local = declares is not None and declares.is_local
        if url is None and declares is not None and not is_local:
            url = declares.address()
        key = None if is_local else self._api_key(url, declares)
        with teacher.vendor(
            url,
            key,
            prices=options.prices,
            on_wait=self.display.note,
            trace_headers=dict if traces is None else traces.headers,
        ) as vendor:
            yield vendor

    def _api_key(self, url: str | None, declares: Declaration | None = None) -> str | None:
        """The key for an address: the one that was said, or that of the API's variable."""
        given, file = self.options.said_key()
        key = given.get_secret_value() if given else None
        if file is not None:
            try:
                key = file.read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"The API key cannot be read from {file}: {error}.") from error
        if key is None and declares is not None and declares.key_variable:
            key = os.environ.get(declares.key_variable) or None
        if key and url is not None and _is_readable_on_the_way(url):
            self.display.note_once(
                f"Warning: {url} is plain http, so the API key can be read by anybody on the way. Give an "
                "https:// address with --vendor, or a tunnel to this machine; then ask "
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
