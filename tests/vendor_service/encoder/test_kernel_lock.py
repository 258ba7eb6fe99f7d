"""What is new is done alone; what is known is done at once with anything."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError

import pytest

from vendor_service.encoder.replica import KernelCompileLock


def _met(compile_lock: KernelCompileLock, *kinds: str, seconds: float = 20) -> bool:
    """Whether threads that do these at once are, for so long at most, all within their blocks at one time."""
    together = Barrier(len(kinds))

    def do(kind: str) -> bool:
        with compile_lock.alone(kind):
            try:
                together.wait(timeout=seconds)
            except BrokenBarrierError:
                return False
            return True

    with ThreadPoolExecutor(len(kinds)) as pool:
        return all(pool.map(do, kinds))


def test_two_threads_never_do_something_new_at_once() -> None:
    compile_lock = KernelCompileLock()
    assert not _met(compile_lock, "a", "a", seconds=0.3)
    assert _met(compile_lock, "a", "a"), "which both know now"
    assert not _met(compile_lock, "b", "c", seconds=0.3)
    assert _met(compile_lock, "a", "b", "c")


def test_what_is_known_does_not_wait_for_what_is_new() -> None:
    compile_lock = KernelCompileLock()
    with compile_lock.alone("known"):
        pass
    assert _met(compile_lock, "known", "new")


def test_what_failed_is_new_again() -> None:
    compile_lock = KernelCompileLock()
    with pytest.raises(ValueError, match="half done"), compile_lock.alone("a"):
        raise ValueError("half done")
    assert not _met(compile_lock, "a", "a", seconds=0.3)
