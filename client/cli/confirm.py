"""A person is asked before what most would want to be asked about: a purchase, the end of a student."""

import sys
from collections.abc import Callable

import typer

from client.errors import UsageError

# Five units of the vendor's currency.
ASK_ABOVE_MICROS = 5_000_000


def asking(*, yes: bool, max_spend_micros: int | None) -> Callable[[int], None]:
    """What is called with the price of a purchase before it begins, in millionths of a unit.

    It returns where the purchase may go on: the price is small, or was agreed to beforehand by --yes or
    --max-spend, or is agreed to now.

    Raises:
        UsageError: it was not agreed to, or there is no terminal to ask at.
    """

    def ask(cost_micros: int) -> None:
        if cost_micros <= ASK_ABOVE_MICROS or yes or max_spend_micros is not None:
            return
        price = f"This buys for {cost_micros:,} micros ({cost_micros / 1e6:.2f} units)."
        if not sys.stdin.isatty():
            raise UsageError(f"{price} Add --yes to agree, or a cap with --max-spend. Nothing was bought.")
        if not typer.confirm(f"{price} Go on?", err=True):
            raise UsageError("Nothing was bought.")

    return ask


def replacing(*, replace: bool) -> Callable[[str], None]:
    """What is called with the reason before a finished student is replaced; it returns where it may be.

    Raises:
        UsageError: neither --replace nor an answer on a terminal says so.
    """

    def ask(reason: str) -> None:
        if replace:
            return
        if not sys.stdin.isatty():
            raise UsageError(
                f"{reason} Choose another --out for a new student, or add --replace. It was left as it is, "
                "and nothing was bought."
            )
        if not typer.confirm(f"{reason} Replace it?", err=True):
            raise UsageError("The student was left as it is, and nothing was bought.")

    return ask
