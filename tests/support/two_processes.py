"""A Python module started twice, as a launcher starts the processes of one run."""

import sys


def two_processes(module: str, *arguments: str) -> list[str]:
    """The command of it; `PYTHONPATH` must lead both to the module."""
    launcher = ("torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    return [sys.executable, "-m", *launcher, "-m", module, *arguments]
