"""Who is asked, and what is refused where nobody can be."""

from contextlib import nullcontext

import pytest

from client.api.confirm import ASK_ABOVE_MICROS, purchases, replacements
from client.errors import UsageError
from client.options.vendor import PurchaseOptions

DEAR = ASK_ABOVE_MICROS + 1


def _never(question: str) -> bool:
    raise AssertionError(question)


def test_a_small_purchase_and_one_that_was_agreed_to_are_not_asked_about() -> None:
    purchases(agreed=PurchaseOptions().agreed, confirm=_never)(ASK_ABOVE_MICROS)
    purchases(agreed=PurchaseOptions(yes=True).agreed, confirm=_never)(DEAR)
    purchases(agreed=PurchaseOptions(max_spend_micros=10 * DEAR).agreed, confirm=_never)(DEAR)


def test_a_cap_that_does_not_agree_is_asked_about() -> None:
    for yes, confirm in ((False, None), (False, lambda _: False), (True, _never)):
        options = PurchaseOptions(yes=yes, max_spend_micros=10 * DEAR)
        options.model_fields_set.discard("max_spend_micros")  # it stands in tuition.toml
        check = purchases(agreed=options.agreed, confirm=confirm)
        check(ASK_ABOVE_MICROS)
        with nullcontext() if yes else pytest.raises(UsageError, match="Nothing was bought"):
            check(DEAR)


def test_a_large_purchase_takes_an_answer() -> None:
    asked: list[str] = []

    def agree(question: str) -> bool:
        asked.append(question)
        return len(asked) == 1

    check = purchases(agreed=PurchaseOptions().agreed, confirm=agree)
    check(DEAR)
    with pytest.raises(UsageError, match=r"^Nothing was bought\.$"):
        check(DEAR)
    assert asked[0] == "This costs 5,000,001 micros (5.00 units). Continue?"
    with pytest.raises(
        UsageError, match=r"5,000,001 micros .* Add --yes to agree, or a cap with --max-spend\."
    ):
        purchases(agreed=False, confirm=None)(DEAR)
    with pytest.raises(UsageError, match=r"Add --yes to agree\. Nothing was bought\.$"):
        purchases(agreed=False, confirm=None, takes_cap=False)(DEAR)


def test_a_finished_student_is_replaced_only_where_somebody_says_so() -> None:
    replacements(replace=True, confirm=_never)("It is old.")
    replacements(replace=False, confirm=lambda question: question == "It is old. Replace it?")("It is old.")
    with pytest.raises(UsageError, match="left as it is"):
        replacements(replace=False, confirm=lambda _: False)("It is old.")
    with pytest.raises(UsageError, match="or add --replace"):
        replacements(replace=False, confirm=None)("It is old.")


def test_one_yes_holds_for_all_that_a_command_replaces() -> None:
    asked: list[str] = []

    def agree(question: str) -> bool:
        asked.append(question)
        return True

    check = replacements(replace=False, confirm=agree)
    for reason in ("It is old.", "Those that leave a domain out are old.", "It is old."):
        check(reason)
    assert asked == ["It is old. Replace it?"]
