"""Receipts: what was sold and for how much, signed once it is in the ledger."""

import binascii
import hashlib
from collections.abc import Sequence

from shared.encoding import RowDtype, Vector, from_rows, to_rows
from shared.receipts import RECEIPT_TYPE, ReceiptClaims, Sold, answer_hash, request_hash, vector_digest
from vendor_service.clock import SECOND
from vendor_service.embed.results import EmbedResult
from vendor_service.encoder.queries import ImageQuery, Query
from vendor_service.money.orders import Charged
from vendor_service.money.signing import Signs


def what_was_sold(result: EmbedResult, dtype: RowDtype) -> list[Sold]:
    """Each answered query with the digests of what it was and of what it brought, in `dtype` on the wire."""
    rows = _as_sent(result.rows, dtype)
    items = result.queries.items
    return [
        Sold(index, items[index].kind, _digest(items[index]), vector_digest(row))
        for index, row in zip(result.answered, rows, strict=True)
    ]


def receipt(signer: Signs, result: EmbedResult, sold: Sequence[Sold], charged: Charged) -> str:
    """The signed receipt of an answer, as a compact JWS.

    It is over the entry of the first time where an answer is sent once more, and dated as that: the same
    vectors bring the very same receipt.
    """
    usage = result.usage
    claims = ReceiptClaims(
        iat=charged.created_at // SECOND,
        request_id=result.id,
        request_hash=request_hash(sold),
        answer_hash=answer_hash(sold),
        model=result.model.id,
        model_fingerprint=result.model.fingerprint,
        images=usage.images,
        texts=usage.texts,
        cost_micros=usage.cost_micros,
        key_id=charged.key_id,
        ledger_seq=charged.seq,
        entry_hash=charged.entry_hash,
    )
    return signer.sign(RECEIPT_TYPE, claims)


def _digest(query: Query) -> str:
    if not isinstance(query, ImageQuery):
        content = query.text.encode(errors="surrogatepass")
    elif isinstance(query.file, bytes):
        content = query.file
    else:
        content = binascii.a2b_base64(query.file)  # it was decoded before, so it can be
    return hashlib.sha256(content).hexdigest()


def _as_sent(rows: Vector, dtype: RowDtype) -> Vector:
    return rows if dtype == "float32" else from_rows(to_rows(rows, dtype), rows.shape, dtype)
