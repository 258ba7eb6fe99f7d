"""A vendor's bulk jobs over HTTP: its Files and Batch API, which are OpenAI's."""

from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import quote

from client.vendors import transport
from client.vendors.signatures import KeyRing
from client.vendors.transport import FileBody, Hooks, HttpTransport, parse
from shared.batches import (
    WINDOW,
    BatchList,
    BatchObject,
    BatchReceipts,
    BatchRequest,
    ChunkReceipt,
    FileList,
    FileObject,
)

_BOUNDARY = "tuition-bulk-4c1d0e2b7f9a"  # no line of JSON begins with it
_PAGE = 100
# Under this name the jobs of this client carry their idempotency keys among their own labels.
KEY_LABEL = "tuition_key"


class BulkApi:
    """The jobs and files of one key's project. Thread-safe. Each method raises what `VendorClient` says."""

    def __init__(self, http: HttpTransport, keys: KeyRing) -> None:
        """Ask nothing yet; `keys` are those of the receipts."""
        self._http = http
        self.keys = keys

    def send_file(self, file: BinaryIO) -> FileObject:
        """Send a file of lines."""
        head = (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="requests.jsonl"\r\n\r\n'
        )
        tail = f"\r\n--{_BOUNDARY}--\r\n"
        body = FileBody(head.encode(), file, tail.encode())
        headers = {
            "content-type": f"multipart/form-data; boundary={_BOUNDARY}",
            "content-length": str(body.length),
        }
        return parse(
            FileObject,
            self._http.send("POST", "/v1/files", headers=headers, body=body, patience=transport.PATIENCE),
        )

    def files(self, *, after: str | None = None) -> Iterator[FileObject]:
        """The files of the key's project, the newest first, those behind one of them."""
        while True:
            params = {"limit": _PAGE} | ({} if after is None else {"after": after})
            page = parse(FileList, self._http.send("GET", "/v1/files", params=params))
            yield from page.data
            if not page.data or not page.has_more or page.last_id in (None, after):
                return
            after = page.last_id

    def file(self, file_id: str) -> FileObject:
        """A file, without what is in it."""
        return parse(FileObject, self._http.send("GET", f"/v1/files/{quote(file_id, safe='')}"))

    def delete_file(self, file_id: str) -> None:
        """Delete a file; tried only once, for nothing depends on it."""
        self._http.send("DELETE", f"/v1/files/{quote(file_id, safe='')}", tries=1)

    def begin(
        self,
        file_id: str,
        *,
        idempotency_key: str,
        max_cost_micros: int,
        fingerprint: str,
        hooks: Hooks,
    ) -> BatchObject:
        """Begin a job with a file of requests of `/embed`, or find it: once at most under this key."""
        asked = BatchRequest(
            input_file_id=file_id,
            endpoint="/embed",
            completion_window=WINDOW,
            metadata={KEY_LABEL: idempotency_key},
        )
        headers = {
            "idempotency-key": idempotency_key,
            "x-max-cost-micros": str(max_cost_micros),
            "x-expect-fingerprint": fingerprint,
        }
        answer = self._http.send(
            "POST",
            "/v1/batches",
            json=asked.model_dump(),
            headers=headers,
            patience=transport.PATIENCE,
            hooks=hooks,
        )
        return parse(BatchObject, answer)

    def find(self, idempotency_key: str) -> BatchObject | None:
        """The job that was begun under this key, if there is one."""
        jobs = self.jobs(patience=transport.PATIENCE)
        labelled = (job for job in jobs if (job.metadata or {}).get(KEY_LABEL) == idempotency_key)
        return next(labelled, None)

    def jobs(self, *, patience: float = 0.0) -> Iterator[BatchObject]:
        """All jobs of the account, the newest first; `patience` as `HttpTransport.send` has it."""
        after: str | None = None
        while True:
            params = {"limit": _PAGE} | ({} if after is None else {"after": after})
            page = parse(BatchList, self._http.send("GET", "/v1/batches", params=params, patience=patience))
            yield from page.data
            if not page.data or not page.has_more or page.last_id in (None, after):
                return
            after = page.last_id

    def get(self, batch_id: str) -> BatchObject:
        """A job."""
        path = f"/v1/batches/{quote(batch_id, safe='')}"
        return parse(BatchObject, self._http.send("GET", path, patience=transport.PATIENCE))

    def cancel(self, batch_id: str) -> BatchObject:
        """End a job now; what is answered is charged and kept."""
        return parse(BatchObject, self._http.send("POST", f"/v1/batches/{quote(batch_id, safe='')}/cancel"))

    def receipts(self, batch_id: str) -> Iterator[ChunkReceipt]:
        """The receipts of a job, in the order of its lines."""
        after = -1
        while True:
            path = f"/v1/batches/{quote(batch_id, safe='')}/receipts"
            params = {"after": after, "limit": _PAGE}
            answer = self._http.send("GET", path, params=params, patience=transport.PATIENCE)
            page = parse(BatchReceipts, answer)
            yield from page.data
            if not page.data or page.next_after is None or page.next_after <= after:
                return
            after = page.next_after

    def download(self, file_id: str, to: BinaryIO, most_bytes: int) -> None:
        """Download a file of at most `most_bytes`."""
        path = f"/v1/files/{quote(file_id, safe='')}/content"
        self._http.send("GET", path, to=to, most_bytes=most_bytes, patience=transport.PATIENCE)
