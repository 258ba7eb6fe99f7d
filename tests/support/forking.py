"""Processes that start in milliseconds: forked from one that has imported the client and the vendor."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

# One server of forks for a whole process of tests: what is preloaded is for all who use it.
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["client.buying.teacher", "vendor_service.cli.main", "vendor_service.serving.serve"]
)


class ForkedCommand:
    """The `main` of a module in a process and session of its own, with what `subprocess.Popen` has.

    Standard error is appended to the file `log`.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
    ) -> None:
        reads, writes = CONTEXT.Pipe(duplex=False)
        given = (module, list(arguments), folder, dict(environment), log, writes)
        self._process = CONTEXT.Process(target=_run, args=given)
        self._process.start()
        writes.close()
        self.stdout = os.fdopen(os.dup(reads.fileno()))
        reads.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; its exit code, negative for a signal."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return self._process.exitcode

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


def _run(
    module: str,
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    stdout: "Connection[bytes, bytes]",
) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(stdout.fileno(), 1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    import_module(module).main()
