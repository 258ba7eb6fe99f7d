"""Which vendor, key and cache a command works with, and what is opened of them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from platformdirs import user_cache_path

from client.cache.cache import EmbeddingCache
from client.data.examples import sent_of
from client.data.file_memory import FileMemory
from client.data.pixels import delete_pixels
from client.errors import ClientError, KeyRefused, UsageError, VendorUnreachable
from client.paths import absence, is_there
from client.progress import Display
from client.purchase.identification import identify
from client.purchase.teacher import Bulk, Teacher
from client.runs.folder import RunFolder
from client.vendors.protocols.tuition import VendorClient
from client.vendors.registry import ProtocolName, connect
from client.vendors.tracing import Traces, find_traces
from client.vendors.vendor import Vendor


@dataclass(frozen=True)
class Connection:
    """Where a command buys, and where it keeps what it bought.

    Attributes:
        vendor_url: --vendor.
        api_key_file: --api-key-file; `None` for TUITION_API_KEY.
        cache_file: --cache; `None` for the usual one.
        display: what a person sees meanwhile.
        protocol: what the vendor speaks.
        model: which of its models is asked; `None` for its default.
        batch: whether to buy by bulk jobs, at their prices.
        wait: whether to wait for bulk jobs.
    """

    vendor_url: str
    api_key_file: Path | None
    cache_file: Path | None
    display: Display
    protocol: ProtocolName = "tuition"
    model: str | None = None
    batch: bool = False
    wait: bool = True
    _said: set[str] = field(default_factory=set, compare=False, repr=False)

    @contextmanager
    def vendor(self) -> Iterator[VendorClient]:
        """The vendor.

        Raises:
            UsageError: the key's file cannot be read, or there is no such URL.
        """
        with VendorClient(self.vendor_url, self._api_key(), on_wait=self.display.note) as client:
            yield client

    @property
    def pixels(self) -> Path:
        """The folder of decoded images: beside the cache."""
        return self._cache_file.parent / "pixels"

    @property
    def files(self) -> FileMemory:
        """What is known of image files: beside the cache."""
        return FileMemory(self._cache_file.parent / f"{self._cache_file.name}.files", self._say_once)

    def forget(self, images: Sequence[str]) -> int:
        """Delete images' embeddings, by the SHA-256 (hex) of their files, and what lies beside the cache.

        That is what is known of the files, and the decoded images: all of them, for none is named after its
        image. Later runs decode them again.

        Returns:
            How many embeddings there were.

        Raises:
            ClientError: there is no cache, or something cannot be deleted.
        """
        with self.cache(must_exist=True) as store:
            embeddings = store.forget(images)
        if not images:
            return embeddings
        self.files.forget(images)
        try:
            delete_pixels(self.pixels)
        except OSError as error:
            raise ClientError(
                f"{error.filename} cannot be deleted: {error.strerror}. Change that, and give the same "
                "command again: it deletes what is left."
            ) from error
        return embeddings

    @property
    def _cache_file(self) -> Path:
        return self.cache_file or user_cache_path("tuition") / "embeddings.db"

    @contextmanager
    def cache(self, *, must_exist: bool = False, half: bool = False) -> Iterator[EmbeddingCache]:
        """The cache; one that is made now rounds to float16 if it is to be `half`.

        Raises:
            UsageError: it must exist, and does not.
            CacheError: it cannot be opened.
        """
        file = self._cache_file
        if must_exist and not is_there(file):
            raise UsageError(
                f"There is no cache {file}: it {absence(file)}. Buying makes one; --cache names another."
            )
        with EmbeddingCache(file, half=half, on_damage=self.display.note, content_of=sent_of) as cache:
            yield cache

    @contextmanager
    def teacher(
        self,
        *,
        run_id: str,
        budget: int | None,
        max_spend_micros: int | None = None,
        run: RunFolder | None = None,
        fingerprint: str | None = None,
    ) -> Iterator[Teacher]:
        """The teacher of a run.

        Where no model is named, it is the one of the `fingerprint`, or that with which the `run` began, if
        it is still sold; otherwise the vendor's default. A `run` that has bought goes on without a vendor
        that is away, or that no longer knows its key, if the cache has what it needs.
        """
        with _open_traces() as traces, self._any_vendor(traces) as client, self.cache() as cache:
            if max_spend_micros is not None and not client.states_prices:
                raise UsageError(
                    f"A vendor that speaks {self.protocol} states no prices, so --max-spend cannot be kept: "
                    "cap the queries with --budget."
                )
            before = None if run is None else run.began_with
            known = None if before is None else before.fingerprint
            try:
                model = identify(client, cache, self.model, fingerprint=fingerprint or known)
            except (VendorUnreachable, KeyRefused) as error:
                if run is None or before is None or not run.purchase.exists():
                    raise
                self.display.note(f"{error} Going on with what was bought.")
                model = before
            if self.batch and client.bulk is None:
                raise UsageError(f"A vendor that speaks {self.protocol} has no bulk jobs: leave --batch out.")
            bulk = Bulk(client, self.batch, self.wait) if isinstance(client, VendorClient) else None
            yield Teacher(
                client,
                cache,
                model=model,
                run_id=run_id,
                budget=budget,
                max_spend_micros=max_spend_micros,
                traces=traces,
                say=self.display.note,
                bulk=bulk,
            )

    @contextmanager
    def _any_vendor(self, traces: Traces | None) -> Iterator[Vendor]:
        key, say = self._api_key(), self.display.note
        headers = dict if traces is None else traces.headers
        with connect(self.protocol, self.vendor_url, key, on_wait=say, trace_headers=headers) as vendor:
            yield vendor

    def _api_key(self) -> str | None:
        key = os.environ.get("TUITION_API_KEY") if self.api_key_file is None else self._read_key()
        if key and _is_readable_on_the_way(self.vendor_url):
            self._say_once(
                f"Warning: {self.vendor_url} is plain http, so the API key can be read by everybody on the "
                "way to it. Give an https:// address with --vendor, or a tunnel to this machine; then ask "
                "the vendor for another key."
            )
        return key

    def _say_once(self, words: str) -> None:
        if words not in self._said:
            self._said.add(words)
            self.display.note(words)

    def _read_key(self) -> str:
        assert self.api_key_file is not None
        try:
            return self.api_key_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The API key cannot be read from {self.api_key_file}: {error}.") from error


def _is_readable_on_the_way(url: str) -> bool:
    """Whether what is sent there leaves this machine unencrypted."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False  # it is no address, and refused as such
    if "@" in parts.netloc:
        return False  # refused as well
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme.lower() != "http" or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return True


@contextmanager
def _open_traces() -> Iterator[Traces | None]:
    traces = find_traces()
    try:
        yield traces
    finally:
        if traces is not None:
            traces.close()
