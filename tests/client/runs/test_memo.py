"""What runs share is worked out once, and what nobody shares is not kept."""

from pathlib import Path
from weakref import ref

import pytest

from client.runs.dataset import DomainInputs, PoolInputs
from client.runs.memo import Memo


def _inputs(domain: str) -> DomainInputs:
    return DomainInputs(Path("root"), domain, group_by_name=False)


class _Result:
    """Something large."""


@pytest.mark.parametrize(("kept", "times"), [(0, 4), (1, 3), (2, 2)])
def test_so_many_results_of_a_kind_are_kept(kept: int, times: int) -> None:
    memo, made = Memo({DomainInputs: kept}), list[str]()
    for content in ("first", "second", "second", "first"):
        value, seconds = memo.once(_inputs(content), lambda content=content: made.append(content))  # type: ignore[misc]
        assert value is None
        assert seconds >= 0
    assert len(made) == times


@pytest.mark.parametrize("kept", [0, 1])
def test_what_makes_room_is_gone_before_the_next_is_made(kept: int) -> None:
    memo = Memo({DomainInputs: kept})
    first = ref(memo.once(_inputs("first"), _Result)[0])
    assert (first() is not None) == (kept == 1)
    memo.once(PoolInputs(("pool",), Path("root"), "red"), _Result)
    assert (first() is not None) == (kept == 1)
    memo.once(_inputs("second"), lambda: _require_gone(first))


def _require_gone(what: ref[_Result]) -> None:
    assert what() is None
