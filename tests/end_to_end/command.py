"""The `client` command as a person or a script would run it."""

import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from client.cli.main import main


@dataclass(frozen=True)
class Outcome:
    """What a command printed; of standard error, the words without the line breaks."""

    stdout: str
    stderr: str


@dataclass
class Command:
    """Runs `client` in a folder, with a vendor, a key and a cache of its own."""

    folder: Path
    url: str
    api_key: str

    @property
    def environment(self) -> dict[str, str]:
        """What the process sees; nothing of Tuition's from whoever runs the tests."""
        outer = {name: value for name, value in os.environ.items() if not name.startswith("TUITION_")}
        own = {
            "TUITION_VENDOR_URL": self.url,
            "TUITION_API_KEY": self.api_key,
            "TUITION_CACHE": str(self.folder / "cache.db"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        return outer | own

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start it as a process and do not wait."""
        return subprocess.Popen(
            [sys.executable, "-c", "from client.cli.main import main; main()", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def process(self, *arguments: str) -> Outcome:
        """Run it as a process to its good end."""
        process = self.start(*arguments)
        out, err = process.communicate()
        assert process.returncode == 0, err
        return Outcome(out, " ".join(err.split()))

    def __call__(self, *arguments: str, code: int = 0) -> Outcome:
        """Run it in this process, which has torch imported already, and check its exit code."""
        out, err = StringIO(), StringIO()
        found = 0
        with (
            chdir(self.folder),
            patch.dict(os.environ, self.environment, clear=True),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                main(list(arguments))
            except SystemExit as end:
                found = int(end.code or 0)
        outcome = Outcome(out.getvalue(), " ".join(err.getvalue().split()))
        assert found == code, f"exit code {found}\n{outcome.stdout}\n{outcome.stderr}"
        return outcome
