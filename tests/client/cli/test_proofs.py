"""What is printed of proofs, whatever a vendor has signed."""

import pytest

from client.cli.proofs import print_evidence
from client.proofs.evidence import Evidence


@pytest.mark.parametrize(
    ("last", "shown"),
    [(1_800_000_000, "2027-01-15"), (10**15, "no date (1000000000000000)"), (10**400, "no date (endless)")],
)
def test_the_days_of_receipts_are_told_and_a_time_that_is_none_is_told_as_such(
    capsys: pytest.CaptureFixture[str], last: int, shown: str
) -> None:
    found = Evidence(receipts=2, first=1_700_000_000, last=last, vendors=["v"], accounts=["a"])
    print_evidence(found, trusted=True)
    assert f"sold by v to the account 'a', from 2023-11-14 to {shown} (UTC)." in capsys.readouterr().out
