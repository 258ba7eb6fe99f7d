"""Proofs and receipts, printed for people on standard output."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from client.cli.command import print_line
from client.cli.tables import print_table
from client.errors import ClientError, UsageError, unwritable
from client.paths import obstacle, replace_text
from client.proofs.reconciliation import Reconciliation
from client.vendors.signatures import time_of

if TYPE_CHECKING:  # what signatures are checked with takes long to import
    from client.proofs.canary import CanaryResult
    from client.proofs.evidence import Evidence
    from client.proofs.isolation import Isolation
    from client.proofs.swap import SwapCheck, SwapEvidence


def print_reconciliation(found: Reconciliation) -> None:
    """Whether receipts and ledger agree, and where they do not."""
    if found.differences:
        rows = [(each.request_id, each.problem) for each in found.differences]
        print_table(("request", "difference"), rows)
    print_line(
        f"{found.matched} receipts agree with the ledger ({found.queries} queries, {found.cost_micros} "
        f"micros); differences: {len(found.differences)}."
    )
    if found.lost:
        print_line(
            f"{found.lost} charges are of requests whose answers never came: they were given up here, or "
            "asked for more than three days ago."
        )
    if found.in_hand:
        print_line(f"{found.in_hand} charges are of requests that a run here is buying right now.")
    if found.elsewhere.charges:
        made = found.elsewhere
        print_line(
            f"{made.charges} charges were made elsewhere, not from this cache ({made.queries} queries, "
            f"{made.cost_micros} micros), {made.of_other_keys} of them with other keys of this account."
        )
    if found.sealed:
        print_line(
            f"{found.sealed} entries belong to other projects of this account: their place in the ledger was "
            "checked, and what they charge is not shown to this key."
        )
    if found.of_other_accounts:
        print_line(
            f"{found.of_other_accounts} receipts here are of other accounts, or older than this comparison."
        )


def print_evidence(found: "Evidence | SwapCheck", *, trusted: bool) -> None:
    """Print what signatures prove; `trusted` says that their keys are known to be the vendor's."""
    from client.proofs.swap import SwapCheck

    if found.problems:
        print_table(("about", "problem"), [(each.request_id, each.problem) for each in found.problems])
    if isinstance(found, SwapCheck):
        _print_swap(found)
    else:
        _print_receipts(found)
    if not trusted and found.keys:
        print_line(
            "The keys are those in the file: compare them with the vendor's own, or name those with --keys."
        )


def _print_swap(found: "SwapCheck") -> None:
    print_line(
        f"Of {found.pairs} inputs the vendor signed two answers that differ, under "
        f"{found.model_fingerprint}; problems: {len(found.problems)}."
    )
    if found.cards is not None:
        print_line(f"Its signed cards contradict each other: {found.cards}.")
    print_line(
        f"Signed by {', '.join(found.keys)}." if found.proven else "Nothing is proved against the vendor."
    )


def _print_receipts(found: "Evidence") -> None:
    if found.disowned:
        print_table(("key", "disowned"), [(each.request_id, each.problem) for each in found.disowned])
    print_line(
        f"{found.receipts} signed receipts are right ({found.queries} queries, {found.cost_micros} micros); "
        f"problems: {len(found.problems)}."
    )
    if found.first is not None and found.last is not None:
        days = [time_of(each, "%Y-%m-%d") for each in (found.first, found.last)]
        who = ", ".join(found.vendors) or "an unnamed vendor"
        whom, when = ", ".join(map(repr, found.accounts)), f"from {days[0]} to {days[1]} (UTC)"
        print_line(f"As the vendor signed: sold by {who} to the account {whom}, {when}.")
        print_line(f"Signed by {', '.join(found.keys)}.")
    for each in found.seen:
        print_line(f"As this cache noted, and nobody signed: {each}.")
    if found.proven or found.unproven:
        print_line(
            f"{found.proven} embeddings are what a receipt says was sold; of {found.unproven} there is none."
        )
    if found.unsigned:
        print_line(f"{found.unsigned} receipts are not signed.")


def print_canary(found: "CanaryResult") -> None:
    """Whether the vendor still sells the model that it sold, and what it means if not."""
    if found.differences:
        rows = [
            (each.name, f"{each.difference:.3g}", "yes" if each.proven else "no")
            for each in found.differences
        ]
        print_table(("input", "largest difference", "both signed"), rows)
    print_line(
        f"{found.asked} inputs were asked again for {found.cost_micros} micros, {found.own} of them bought "
        f"before; answered otherwise: {len(found.differences)}."
    )
    if found.stopped is not None:
        print_line(f"Not all were asked: {found.stopped}")
    if found.contradiction is not None:
        print_line(f"The vendor's signed cards contradict each other: {found.contradiction}.")
    if not found.swapped:
        print_line(f"Nothing speaks against {found.fingerprint} being the model that it was.")
        return
    print_line(
        f"Another model is sold under {found.fingerprint} than before. The cache has "
        f"{found.bought} embeddings under this name; those bought before and after the change do not mix, "
        "and a student that learnt from both had two teachers. Buy no more of it, keep the receipts, and "
        "ask the vendor."
    )


def print_isolation(found: "Isolation") -> None:
    """What the other key tried, and whether each wall held."""
    print_table(
        ("the other key tries to", "wall", ""),
        [(each.what, each.outcome, each.said) for each in found.attempts],
    )
    counts = Counter(each.outcome for each in found.attempts)
    print_line(
        f"{_seen(found.other_account, found.other_project)} against "
        f"{_seen(found.account, found.project)}: {counts['held']} walls held, {counts['broken']} are broken, "
        f"{counts['not tried']} were not tried. Nothing was billed."
    )


def _seen(account: str, project: str | None) -> str:
    return f"the account {account}" if project is None else f"the project {project} of {account}"


def check_evidence(path: Path) -> None:
    """Refuse, before anything is bought, a file that could not be written.

    Raises:
        UsageError: its folder does not exist or takes no files, or it is a folder itself.
    """
    if why := obstacle(path):
        raise UsageError(f"--evidence cannot be written: {why}.")


def write_evidence(path: Path | None, evidence: "SwapEvidence | None") -> tuple[bool, ClientError | None]:
    """Write the file, if there is one to write; returns whether it is written, and why it cannot be."""
    if path is None or evidence is None:
        return False, None
    try:
        replace_text(path, evidence.model_dump_json(indent=1) + "\n")
    except OSError as error:
        return False, unwritable(path, error)
    return True, None
