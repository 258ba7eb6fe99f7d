"""Wrong tokens: who tries them is remembered by the last try, however many others try meanwhile."""

import pytest

from vendor_service.acts import authentication
from vendor_service.acts.authentication import WrongTries
from vendor_service.errors import APIError


def test_who_goes_on_trying_is_not_forgotten_among_many_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_MOST_REMEMBERED", 5)
    tries = WrongTries(lambda: 0.0)
    for number in range(10):
        tries.check("stubborn")
        tries.count("stubborn")
        tries.count(f"other {number}")
    with pytest.raises(APIError) as refused:
        tries.check("stubborn")
    assert refused.value.retry_after == 6
    tries.check("other 0")  # forgotten, and free to try
