"""The waiting of threads that share a computation, on a machine that has other work too."""

import os

_WAITED = "20000"  # turns of a loop, about a millisecond


def share_processors() -> None:
    """Let a thread that waits for the others of its team soon leave its processor to whoever needs it.

    GNU's OpenMP, which PyTorch's wheels for Linux bring, otherwise has it turn for many milliseconds, on the
    processor that the one it waits for may be in want of. It asks the environment when it is loaded, so this
    is to be called before torch is imported. What is set there already stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _WAITED)
