"""Ctrl-C, which ends a command wherever it is but in the middle of taking a lock, and is not lost."""

import _thread
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Python's conditions, which pools of threads wait by, take their lock in functions of their own. What is
# raised in one of these leaves the lock taken for good, or not taken where it should be
# (https://github.com/python/cpython/issues/74174), and every thread that needs it waits for ever.
_TAKES_A_LOCK = frozenset(
    each.__code__
    for each in (
        threading.Condition.__enter__,
        threading.Condition.__exit__,
        threading.Condition._acquire_restore,  # type: ignore[attr-defined]
        threading.Condition._release_save,  # type: ignore[attr-defined]
        threading.Semaphore.acquire,
    )
)
_A_MOMENT = 0.001  # seconds


class _State:
    raised = False  # whether Ctrl-C was raised already, in this command


@contextmanager
def interruptible() -> Iterator[None]:
    """Have Ctrl-C raise `KeyboardInterrupt` in here, a moment later where a lock is being taken.

    Whoever has another handler, or ignores Ctrl-C as `nohup` does, keeps that.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _State.raised = False
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        _State.raised = False
        signal.signal(signal.SIGINT, signal.default_int_handler)


def raise_lost_interrupt() -> None:
    """For work that goes on: raise a Ctrl-C that was raised before and did not get through.

    What is raised while something is pickled, for one, may be caught by code that catches everything.
    """
    if _State.raised:
        raise KeyboardInterrupt


def _interrupt(_number: int, frame: FrameType | None) -> None:
    if frame is None or frame.f_code not in _TAKES_A_LOCK:
        _State.raised = True
        raise KeyboardInterrupt
    _thread.start_new_thread(_interrupt_again, ())  # unlike threading's, it takes no lock in this thread


def _interrupt_again() -> None:
    time.sleep(_A_MOMENT)
    if sys.platform == "win32":
        _thread.interrupt_main(signal.SIGINT)
    else:  # a real signal, which also ends what the main thread waits for
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
