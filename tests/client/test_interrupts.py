"""Ctrl-C never leaves a lock taken that others wait for."""

import signal
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from types import SimpleNamespace

import pytest

from client.interrupts import interruptible, raise_lost_interrupt

_press = partial(signal.raise_signal, signal.SIGINT)


def _interrupted_while_it_is_taken() -> threading.Condition:
    condition = threading.Condition()
    condition._lock = SimpleNamespace(__enter__=_press)  # type: ignore[attr-defined]
    return condition


def test_ctrl_c_waits_until_a_lock_is_taken() -> None:
    condition = _interrupted_while_it_is_taken()
    taken: list[bool] = []

    def work() -> None:
        taken.append(condition.__enter__())
        threading.Event().wait(60)

    with pytest.raises(KeyboardInterrupt), interruptible():
        work()
    assert len(taken) == 1


def test_without_that_the_lock_would_be_lost() -> None:
    """Python's own handler raises in the middle: what this module is for."""
    with pytest.raises(KeyboardInterrupt):
        _interrupted_while_it_is_taken().__enter__()


def test_elsewhere_ctrl_c_comes_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), interruptible():
        _press()


def test_one_that_was_caught_by_who_catches_everything_comes_again() -> None:
    def work() -> None:
        with suppress(BaseException):
            _press()
        raise_lost_interrupt()

    raise_lost_interrupt()
    with pytest.raises(KeyboardInterrupt), interruptible():
        work()
    raise_lost_interrupt()  # nothing is left of it


def test_who_ignores_ctrl_c_goes_on_doing_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            _press()
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_leaves_the_handler_alone() -> None:
    found = []

    def look() -> None:
        with interruptible():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


@pytest.mark.parametrize("package", ["client", "vendor_service"])
def test_a_command_that_is_still_being_imported_ends_without_a_traceback(package: str) -> None:
    code = f"""
import signal, sys
class Presses:
    def find_spec(self, name, *_):
        if name == "typer":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Presses())
from {package}.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")
