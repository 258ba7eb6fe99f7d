"""What is new is done alone; what is known is done at once with anything."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError

import pytest

from shared.first_times import FirstTimes


def _met(first_times: FirstTimes, *kinds: str, seconds: float = 20) -> bool:
    """Whether threads that do these at once are, for so long at most, all within their blocks at one time."""
    together = Barrier(len(kinds))

    def do(kind: str) -> bool:
        with first_times.alone(kind):
            try:
                together.wait(timeout=seconds)
            except BrokenBarrierError:
                return False
            return True

    with ThreadPoolExecutor(len(kinds)) as pool:
        return all(pool.map(do, kinds))


def test_two_threads_never_do_something_new_at_once() -> None:
    first_times = FirstTimes()
    assert not _met(first_times, "a", "a", seconds=0.3)
    assert _met(first_times, "a", "a"), "which both know now"
    assert not _met(first_times, "b", "c", seconds=0.3)
    assert _met(first_times, "a", "b", "c")


def test_what_is_known_does_not_wait_for_what_is_new() -> None:
    first_times = FirstTimes()
    with first_times.alone("known"):
        pass
    assert _met(first_times, "known", "new")


def test_what_failed_is_new_again() -> None:
    first_times = FirstTimes()
    with pytest.raises(ValueError, match="half done"), first_times.alone("a"):
        raise ValueError("half done")
    assert not _met(first_times, "a", "a", seconds=0.3)
