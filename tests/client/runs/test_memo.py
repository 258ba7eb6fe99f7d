"""What runs share is worked out once, and what nobody shares is not kept."""

from pathlib import Path
from weakref import ref

import pytest

from client.runs.dataset import PoolInputs, ViewInputs
from client.runs.memo import Memo


class _Result:
    """Something large."""


@pytest.mark.parametrize(("kept", "times"), [(0, 4), (1, 3), (2, 2)])
def test_so_many_results_of_a_kind_are_kept(kept: int, times: int) -> None:
    memo, made = Memo({ViewInputs: kept}), list[str]()
    for content in ("first", "second", "second", "first"):
        value, seconds = memo.once(ViewInputs(content, 2), lambda content=content: made.append(content))  # type: ignore[misc]
        assert value is None
        assert seconds >= 0
    assert len(made) == times


@pytest.mark.parametrize("kept", [0, 1])
def test_what_makes_room_is_gone_before_the_next_is_made(kept: int) -> None:
    memo = Memo({ViewInputs: kept})
    first = ref(memo.once(ViewInputs("first", 2), _Result)[0])
    assert (first() is not None) == (kept == 1)
    memo.once(PoolInputs(("pool",), Path("root"), "red"), _Result)
    assert (first() is not None) == (kept == 1)
    memo.once(ViewInputs("second", 2), lambda: _require_gone(first))


def _require_gone(what: ref[_Result]) -> None:
    assert what() is None
