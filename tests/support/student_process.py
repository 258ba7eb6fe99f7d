"""A real `client serve` as a real process, for tests that need one to talk to."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.forking import ForkedCommand
from tests.support.vendor_process import end_of

_READY = re.compile(r"Tuition student ready on (http://\S+:(\d+)) \((.*)\)")
_STOP_SECONDS = 40.0


class StudentProcess:
    """`client serve` in a process group of its own, with its log in `folder`.

    Use it as a context manager. `options` are those of `client serve`, and `code` is run before the command.
    Where it is `forked`, as in tests, and runs no other code, it comes from a process that has imported what
    it needs.
    """

    forked = False

    def __init__(self, student: Path, folder: Path, *options: str, code: str = "") -> None:
        self.log = folder / "student.log"
        self._arguments = ["serve", str(student), "--port", "0", *options]
        self._code = code
        self._folder = folder

    def __enter__(self) -> Self:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TUITION_")}
        self._process: subprocess.Popen[str] | ForkedCommand
        if self.forked and not self._code:
            self._process = ForkedCommand(
                "client.cli.main", self._arguments, self._folder, environment, self.log
            )
        else:
            self._process = self._spawned(environment)
        assert self._process.stdout is not None
        ready = _READY.search(self._process.stdout.readline())
        if ready is None:
            self.stop()
            raise AssertionError(f"the student was not served:\n{self.log.read_text()}")
        self.url, port, self.facts = ready.groups()
        self.port = int(port)
        return self

    def _spawned(self, environment: dict[str, str]) -> "subprocess.Popen[str]":
        code = f"import sys; {self._code or 'pass'}; from client.cli.main import main; main()"
        with self.log.open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-c", code, *self._arguments],
                cwd=self._folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Which process it is."""
        return self._process.pid

    def send(self, sent: signal.Signals) -> None:
        """Send it a signal."""
        os.killpg(self._process.pid, sent)

    def stop(self, sent: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop and wait until it has; its exit code."""
        if self._process.poll() is None:
            self.send(sent)
        code = end_of(self._process, _STOP_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code
