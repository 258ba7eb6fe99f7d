"""Bulk jobs on real books, without a model: what a process of a vendor does, with answers nobody made."""

import secrets
from collections import Counter
from collections.abc import Collection
from functools import cached_property

from shared.batches import BatchObject, BatchRequest
from shared.receipts import Sold
from vendor_service.batches.files import Files
from vendor_service.batches.intake import Piece, Taken
from vendor_service.batches.jobs import Jobs, JobTerms
from vendor_service.batches.leases import ChunkOutcome, Claim, Leases
from vendor_service.batches.limits import BatchLimits
from vendor_service.batches.store import Store
from vendor_service.clock import Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import StoredFile
from vendor_service.database.view import View
from vendor_service.encoder.facts import ModelFacts
from vendor_service.metrics import Metrics
from vendor_service.money.admission import Admission
from vendor_service.money.orders import Charged, JobPart, Order

LIMITS = BatchLimits(
    max_file_bytes=10**6,
    max_line_bytes=10**4,
    max_lines=1000,
    account_bytes=10**9,
    account_jobs=50,
    keep_days=30,
)
SERVED = [("icon-clip", "fp_1")]


class BulkProcess:
    """One process that begins jobs and works on them; `admission` is its own."""

    def __init__(self, database: Database, clock: Clock, admission: Admission) -> None:
        self.admission = admission
        self.files = Files(database, Store("memory://bulk"), clock, LIMITS)
        self.metrics = Metrics()
        self.jobs = Jobs(database, admission, clock, LIMITS, self.metrics)
        self.leases = Leases(database, clock)

    @cached_property
    def model(self) -> ModelFacts:
        """The model that the books have prices of."""
        return ModelFacts(
            id="icon-clip", fingerprint="fp_1", dtype="float32", tolerance=0.0, devices=(), dimensions=1,
            image_size=1, image_bytes=3, preprocessing={},
        )  # fmt: skip

    def begin(self, order: Order, *sizes: tuple[int, int]) -> BatchObject:
        """Begin a job of an order's account, with a chunk of so many images and texts for each of these."""
        return self.begin_with(order, self.send(order, *sizes))

    def send(self, order: Order, *sizes: tuple[int, int]) -> StoredFile:
        """Send in a file of such chunks."""
        file_id = self.files.begin(order.account_id, "", 0)
        pieces = [
            Piece(number, number, bytes=1, lines=1, counts=Counter({"image": images, "text": texts}))
            for number, (images, texts) in enumerate(sizes)
        ]
        taken = Taken("", len(pieces), "/embed", "icon-clip", pieces)
        self.files.finish(order.account_id, file_id, "in.jsonl", taken)
        return self.files.get(View.whole(order.account_id), file_id)

    def begin_with(self, order: Order, file: StoredFile) -> BatchObject:
        """Begin a job with a file."""
        terms = JobTerms(View.whole(order.account_id), "", order.key_id, order.secret_hash)
        asked = BatchRequest(input_file_id=file.id, endpoint="/embed", completion_window="24h")
        return self.jobs.begin(terms, asked, file, self.model)

    def claim(self) -> Claim | None:
        """The next chunk."""
        return self.leases.claim(SERVED)

    def settle(
        self,
        claim: Claim,
        *,
        images: int | None = None,
        texts: int | None = None,
        buckets: Collection[int] = (),
    ) -> Charged | None:
        """Settle a chunk of which so many images and texts were answered; all of them unless it is said."""
        part, outcome = self.done(claim, images, texts, buckets)
        return self.admission.settle_part(claim.job.account_id, claim.job.hold_id, part, outcome).result()

    def done(
        self, claim: Claim, images: int | None = None, texts: int | None = None, buckets: Collection[int] = ()
    ) -> tuple[JobPart, ChunkOutcome]:
        """What settles a chunk."""
        piece = claim.piece
        images = piece.counts.get("image", 0) if images is None else images
        texts = piece.counts.get("text", 0) if texts is None else texts
        request_id = f"req_{secrets.token_hex(8)}"
        sold = [Sold(place, "image" if place < images else "text", "", "") for place in range(images + texts)]
        answered = int(bool(sold))
        outcome = ChunkOutcome(
            claim, answered, 1 - answered, 10 * answered, 10 - 10 * answered, sold, request_id, LIMITS
        )
        return JobPart(request_id, piece.counts, {"image": images, "text": texts}, buckets), outcome
