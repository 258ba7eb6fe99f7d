"""Every command of docs/tutorial.md, in its order, in one shell, against the vendor that it starts."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.toy import make_folder, tiny_student
from tests.end_to_end.command import TINY
from tests.support.forking import forked_programs
from tests.support.vendor_process import held_port

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
# The model hub is out of reach here, so its model is replaced by the bundled one, as the tutorial suggests.
HUB = " --model ViT-B-32/laion2b_s34b_b79k"
# And a few steps of a small student on small images show that a command works.
BRIEFLY = " --steps 3 --image-size 32 " + " ".join(TINY)


def _blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def port() -> Iterator[str]:
    """A port for the vendor."""
    with held_port() as held:
        yield str(held.getsockname()[1])


@pytest.mark.long
def test_every_command_does_what_it_says(tmp_path: Path, port: str) -> None:
    install, serve, *rest = _blocks()
    assert install.split("\n")[0] == "make demo"  # the demo has a test of its own
    assert HUB in serve
    make_folder(tmp_path / "photos", images=8)
    tiny_student(tmp_path)
    (tmp_path / "photos" / "light").rename(tmp_path / "photos" / "winter")

    script = "".join(rest).replace("8000", port)
    script = re.sub(r"^(client (?:distill|compare) .*)$", rf"\1{BRIEFLY}", script, flags=re.MULTILINE)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("VENDOR_", "TUITION_"))
    } | {
        "OMP_NUM_THREADS": "1",
        "TUITION_CACHE": str(tmp_path / "cache.db"),
    }
    here: dict[str, Any] = {"cwd": tmp_path, "env": environment, "text": True}
    command = shlex.split(serve.replace(HUB, f" --port {port}"))
    with (
        forked_programs(tmp_path) as programs,
        subprocess.Popen([programs / command[0], *command[1:]], stdout=subprocess.PIPE, **here) as vendor,
    ):
        environment["PATH"] = f"{programs}:{os.environ['PATH']}"
        try:
            assert vendor.stdout is not None
            assert f"ready on http://127.0.0.1:{port}" in vendor.stdout.readline()
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, **here)
        finally:
            vendor.terminate()
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "fox" / "report.html").exists()
    assert (tmp_path / "fox.onnx").exists()
    assert "differences: 0." in done.stdout
