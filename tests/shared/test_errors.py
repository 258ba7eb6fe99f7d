"""The table of error codes is complete and means what HTTP means."""

import pytest

from shared.errors import ErrorCode


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_a_status_and_only_passing_troubles_are_retryable(code: ErrorCode) -> None:
    assert code.kind.retryable == (code.kind.status in {409, 429, 500, 503, 504})


def test_running_out_of_money_is_never_a_429() -> None:
    assert ErrorCode.QUOTA_EXHAUSTED.kind.status == 402
