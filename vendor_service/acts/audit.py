"""The audit log and the ledger: who changed what, and whether both are in order."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

from vendor_service.acts.act import Act, ActContext
from vendor_service.acts.declaration import query
from vendor_service.acts.names import OneAccount
from vendor_service.acts.verification import LedgerVerifier
from vendor_service.audit import log
from vendor_service.audit.log import AuditRecord, AuditVerification
from vendor_service.money.verification import Verification
from vendor_service.terms import Term


def _rows(found: list[AuditRecord]) -> Iterator[dict[str, Any]]:
    for each in found:
        row = each.model_dump(mode="json", exclude={"previous_hash", "entry_hash"})
        row["created_at"] = row["created_at"][:19].replace("T", " ")
        for side in ("before", "after"):
            row[side] = None if row[side] is None else json.dumps(row[side], ensure_ascii=False)
        yield row


@query(command="audit list", route="GET /audit", rows=_rows, command_limit=100)
def list_entries(
    act: Act,
    subject: Annotated[
        str | None,
        Term(
            "Only what was done to this account, price, token or key of receipts.",
            typed="--subject",
            longest=255,
        ),
    ] = None,
    after: Annotated[
        int | None,
        Term(
            "Begin after the change of this number, rather than with the last ones.",
            typed="--after",
            least=0,
            most=2**53 - 1,
        ),
    ] = None,
    limit: Annotated[int, Term("How many changes to list.", typed="--limit", least=1, most=1000)] = 100,
) -> list[AuditRecord]:
    """List the last changes of the books, oldest first: who made them, and what was before and after.

    Example: vendor audit list --subject acme
    """
    return log.entries(act.session, after=after, limit=limit, subject=subject)


def _fault(found: AuditVerification) -> str | None:
    return f"the audit log is not in order: {found.problem}" if found.problem else None


@query(command="audit verify", route="GET /audit/verification", fault=_fault)
def verify_log(act: Act) -> AuditVerification:
    """Recompute the chain of the log, and name its first fault; exit 1 if there is one.

    Keep the hash that it prints somewhere else: a log that was written anew from there on has another.

    Example: vendor audit verify
    """
    return log.verify(act.session)


def _faults(found: list[Verification]) -> str | None:
    faulty = [each.account for each in found if each.problem]
    return f"the books of {', '.join(faulty)} are not in order" if faulty else None


def _nobody(found: list[Verification]) -> str | None:
    return None if found else "there are no accounts yet"


@query(
    command="ledger verify",
    route="GET /ledger/verification",
    transaction=False,
    pages=False,
    note=_nobody,
    fault=_faults,
)
def verify_ledger(context: ActContext, account: OneAccount = None) -> list[Verification]:
    """Recompute chain, sums and counters, and name the first fault of each account; exit 1 if there is one.

    It reads the whole ledger, one verification at a time.

    Example: vendor ledger verify acme
    """
    verifier = context.verifier or LedgerVerifier(context.database)
    return verifier.verify(account, context.progress)
