"""Disputes: what a receipt, a signed head or a request's id says, held against the ledger."""

import json
from collections.abc import Mapping
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.billing import Entry
from shared.receipts import ALGORITHM, HEAD_TYPE, RECEIPT_TYPE, HeadClaims, ReceiptClaims, from_base64url
from vendor_service.database.tables import Account, Hold, LedgerEntry, SigningKeyRow
from vendor_service.errors import UsageError
from vendor_service.money import currency, ledger
from vendor_service.terms import money

LONGEST = 8192
_CLAIMS: dict[str, type[ReceiptClaims] | type[HeadClaims]] = {
    RECEIPT_TYPE: ReceiptClaims,
    HEAD_TYPE: HeadClaims,
}

Signature = Literal["good", "withdrawn", "unknown key", "wrong", "none"]


class Dispute(BaseModel):
    """What the books say of a receipt or a request; `holds`: both agree. `verdict` says it in words.

    A request's id has no signature, and no `claims`. `differences` are those between claims and entry.
    `left_micros` is what is charged after all refunds.
    """

    holds: bool
    verdict: str
    signature: Signature
    key: str | None = None
    account: str | None = None
    claims: dict[str, Any] | None = None
    entry: Entry | None = None
    differences: list[str] = []
    refunds: list[Entry] = []
    left_micros: int | None = None
    currency: str | None = None


class _Signed(BaseModel):
    """A statement as it was signed, and by which key."""

    claims: ReceiptClaims | HeadClaims
    kid: str
    signature: Signature


def judge(session: Session, shown: str) -> Dispute:
    """Hold a receipt or a signed head (a compact JWS), or what is known by a request's id, against the books.

    Raises:
        UsageError: it is neither.
    """
    shown = shown.strip()
    if not 0 < len(shown) <= LONGEST or not shown.isascii() or not shown.isprintable():
        raise UsageError("show a receipt, a signed head, or the id of a request")
    found = _of_statement(session, _opened(session, shown)) if "." in shown else _of_request(session, shown)
    return found.model_copy(update={"currency": currency.current(session)})


def facts(found: Dispute) -> list[tuple[str, str]]:
    """What was found, as pairs for people."""
    told = [("Verdict", found.verdict), ("Signature", found.signature)]
    told += [(name, value) for name, value in (("Key", found.key), ("Account", found.account)) if value]
    told += [("Difference", each) for each in found.differences]
    unit = f" {found.currency}" if found.currency else ""
    if (entry := found.entry) is not None:
        told.append(("Entry", f"{entry.seq}, a {entry.kind} of {money(entry.amount_micros)}{unit}"))
        told += [
            (name, str(value))
            for name, value in (
                ("Request", entry.request_id),
                ("Queries", _counted(entry)),
                ("Model", entry.model),
                ("Key that paid", entry.key_id),
                ("Date", entry.created_at and f"{entry.created_at:%Y-%m-%d %H:%M:%S} UTC"),
            )
            if value
        ]
    for each in found.refunds:
        when = f"{each.created_at:%Y-%m-%d}" if each.created_at else ""
        of = f", {each.reference}" if each.reference else ""
        told.append(("Refund", f"entry {each.seq}, {when}: {money(each.amount_micros)}{unit}{of}"))
    if found.refunds and found.left_micros is not None:
        told.append(("Still charged", f"{money(found.left_micros)}{unit}"))
    return told


def _opened(session: Session, shown: str) -> _Signed:
    try:
        head, payload, signature = shown.split(".")
        header = json.loads(from_base64url(head))
        kid, kind = str(header["kid"]), str(header["typ"])
        if header["alg"] != ALGORITHM or kind not in _CLAIMS:
            raise ValueError("another algorithm, or kind of statement")
        claims = _CLAIMS[kind].model_validate_json(from_base64url(payload))
        signed = from_base64url(signature)
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise UsageError("that is no receipt: a compact JWS, as `x-tuition-receipt` has it") from error
    row = session.get(SigningKeyRow, kid)
    if row is None:
        return _Signed(claims=claims, kid=kid, signature="unknown key")
    try:
        Ed25519PublicKey.from_public_bytes(from_base64url(row.x)).verify(signed, f"{head}.{payload}".encode())
    except InvalidSignature:
        return _Signed(claims=claims, kid=kid, signature="wrong")
    return _Signed(claims=claims, kid=kid, signature="good" if row.withdrawn_at is None else "withdrawn")


_NOT_OURS: dict[Signature, str] = {
    "unknown key": "No key of these books signed this: it is of another vendor, or made up.",
    "wrong": "The signature does not match: this was changed after it was signed, or made up.",
    "withdrawn": "The key that signed this was withdrawn, so it proves nothing.",
}


def _of_statement(session: Session, signed: _Signed) -> Dispute:
    claims = signed.claims
    common: dict[str, Any] = {
        "signature": signed.signature,
        "key": signed.kid,
        "claims": claims.model_dump(mode="json", exclude_none=True),
    }
    if signed.signature != "good":
        return Dispute(holds=False, verdict=_NOT_OURS[signed.signature], **common)
    row = session.get(LedgerEntry, (claims.account_id, claims.ledger_seq))
    if isinstance(claims, HeadClaims) and not claims.ledger_seq:
        return Dispute(holds=True, verdict="We signed this: the ledger was empty then.", **common)
    if row is None:
        verdict = f"We signed this, but the books have no entry {claims.ledger_seq} of that account."
        return Dispute(holds=False, verdict=f"{verdict} Was an older backup restored?", **common)
    differences = _differences(claims, row)
    common |= {"differences": differences, **_entry(session, row)}
    if differences:
        verdict = "We signed this, but the entry in the books is another one. Verify the ledger."
    else:
        verdict = f"We signed this, and entry {row.seq} of {common['account']} is what it says."
    return Dispute(holds=not differences, verdict=verdict + _given_back(common), **common)


def _of_request(session: Session, request_id: str) -> Dispute:
    row = session.scalar(select(LedgerEntry).where(LedgerEntry.hold_id == request_id))
    if row is not None:
        common = _entry(session, row)
        differences = _altered(row)
        verdict = f"The request was charged once, as entry {row.seq} of {common['account']}."
        return Dispute(
            holds=not differences,
            verdict=verdict + _given_back(common),
            signature="none",
            differences=differences,
            **common,
        )
    hold = session.get(Hold, request_id)
    if hold is None:
        verdict = (
            "These books know no request of this id: it was refused, or nothing was ever charged for it."
        )
        return Dispute(holds=False, verdict=verdict, signature="none")
    account = session.get_one(Account, hold.account_id).name
    verdict = "The request is in flight." if hold.state == "open" else "The request was not answered."
    return Dispute(holds=True, verdict=f"{verdict} Nothing was charged.", signature="none", account=account)


def _entry(session: Session, row: LedgerEntry) -> dict[str, Any]:
    mine = (LedgerEntry.account_id == row.account_id, LedgerEntry.corrects_seq == row.seq)
    refunds = session.scalars(select(LedgerEntry).where(*mine).order_by(LedgerEntry.seq)).all()
    return {
        "account": session.get_one(Account, row.account_id).name,
        "entry": ledger.public(row),
        "refunds": [ledger.public(each) for each in refunds],
        "left_micros": -row.amount_micros - sum(each.amount_micros for each in refunds),
    }


def _altered(row: LedgerEntry) -> list[str]:
    if ledger.entry_hash(row) == row.entry_hash:
        return []
    return [f"entry {row.seq} was changed in the books: its hash does not match"]


def _differences(claims: ReceiptClaims | HeadClaims, row: LedgerEntry) -> list[str]:
    said: list[tuple[str, object, object]] = [("entry_hash", claims.entry_hash, row.entry_hash)]
    if isinstance(claims, ReceiptClaims):
        said += [
            ("request_id", claims.request_id, row.hold_id),
            ("cost_micros", claims.cost_micros, -row.amount_micros),
            ("model", claims.model, row.model),
            ("model_fingerprint", claims.model_fingerprint, row.model_fingerprint),
            ("key_id", claims.key_id, row.key_id),
            ("counts", _some(claims.counts), _some(row.counts)),
        ]
    return _altered(row) + [
        f"{name} is {there} in the books, and {signed} in what was signed"
        for name, signed, there in said
        if signed != there
    ]


def _some(counts: Mapping[Any, int]) -> dict[Any, int]:
    return {kind: number for kind, number in counts.items() if number}


def _counted(entry: Entry) -> str:
    return " and ".join(f"{number:,} of {kind}" for kind, number in entry.counts.items() if number)


def _given_back(common: dict[str, Any]) -> str:
    if not common.get("refunds"):
        return ""
    return " All of it was given back." if not common["left_micros"] else " A part of it was given back."
