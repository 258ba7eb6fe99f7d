"""The `client` command as a person or a script would run it."""

import os
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from client.cli.main import main
from tests.client.toy import tiny_student
from tests.support.forking import ForkedCommand

# A student of a third of a million weights, for runs whose tests are not about what the student is.
TINY = ("--student", "test_efficientnet", "--student-weights", "backbone.safetensors")


@dataclass(frozen=True)
class Outcome:
    """What a command printed; of standard error, the words without the line breaks."""

    stdout: str
    stderr: str


@dataclass
class Command:
    """Runs `client` in a folder, with a vendor, a key and a cache of its own; `TINY` is a student there."""

    folder: Path
    url: str
    api_key: str

    def __post_init__(self) -> None:
        tiny_student(self.folder)

    @property
    def environment(self) -> dict[str, str]:
        """What the process sees; nothing of Tuition's from whoever runs the tests."""
        outer = {name: value for name, value in os.environ.items() if not name.startswith("TUITION_")}
        own = {
            "TUITION_VENDOR_URL": self.url,
            **dict.fromkeys(("TUITION_API_KEY", "OPENAI_API_KEY", "JINA_API_KEY"), self.api_key),
            "TUITION_CACHE": str(self.folder / "cache.db"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        return outer | own

    def start(self, *arguments: str) -> ForkedCommand:
        """Start it as a process and do not wait; in a `with`, it does not outlive the block."""
        log = self.folder / "stderr.log"
        log.write_text("")
        return ForkedCommand("client.cli.main", arguments, self.folder, self.environment, log)

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
