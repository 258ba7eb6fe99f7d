"""Two things need consent: a large purchase, and the replacement of a finished student."""

from collections.abc import Callable

from client.errors import UsageError

# Answers a question by yes or no.
Confirm = Callable[[str], bool]

# Five units of the vendor's currency.
ASK_ABOVE_MICROS = 5_000_000


def purchases(*, agreed: bool, confirm: Confirm | None, takes_cap: bool = True) -> Callable[[int], None]:
    """A function that is called with the price of a purchase before it begins, in millionths of a unit.

    It returns where the purchase may go on: the price is small, or was `agreed` to beforehand, or `confirm`
    agrees to it. `takes_cap` says whether a cap can agree to it.

    Raises:
        UsageError: nobody agreed; of the function that is returned.
    """

    def check(cost_micros: int) -> None:
        if cost_micros <= ASK_ABOVE_MICROS or agreed:
            return
        price = f"This costs {cost_micros:,} micros ({cost_micros / 1e6:.2f} units)."
        if confirm is None:
            or_cap = ", or a cap with --max-spend" if takes_cap else ""
            raise UsageError(f"{price} Add --yes to agree{or_cap}. Nothing was bought.")
        if not confirm(f"{price} Continue?"):
            raise UsageError("Nothing was bought.")

    return check


def replacements(*, replace: bool, confirm: Confirm | None) -> Callable[[str], None]:
    """A function that is called with the reason before a finished student is replaced.

    It returns where the student may be replaced: `replace` or `confirm` says so. One yes holds for all that
    one command replaces, or the next question would come after hours of training.

    Raises:
        UsageError: neither does; of the function that is returned.
    """
    agreed = replace

    def check(reason: str) -> None:
        nonlocal agreed
        if agreed:
            return
        if confirm is None:
            raise UsageError(
                f"{reason} Choose another --out for a new student, or add --replace. It was left as it is, "
                "and nothing was bought for another."
            )
        if not confirm(f"{reason} Replace it?"):
            raise UsageError("The student was left as it is, and nothing was bought for another.")
        agreed = True

    return check
