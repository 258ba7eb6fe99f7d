"""A disk that fills up, and a client in a hurry."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.vendors import transport


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB, where the tests may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no disk may be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the client try again at once, and give up after the last try."""
    monkeypatch.setattr(transport, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(transport, "PATIENCE", 0.0)
