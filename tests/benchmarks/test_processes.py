"""A process that is given a part of a core stays in its group for as long, and no longer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import processes
from benchmarks.processes import confined


def _group(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()


@pytest.mark.skipif(
    not os.access(processes.GROUPS / "cpu", os.W_OK), reason="the kernel's control groups are not ours"
)
def test_a_process_is_confined_and_let_go() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        before = _group(child.pid)
        with confined(child.pid, 0.25):
            assert f"/tuition-{os.getpid()}-{child.pid}" in _group(child.pid)
            group = processes.GROUPS / "cpu" / f"tuition-{os.getpid()}-{child.pid}"
            assert (group / "cpu.cfs_period_us").read_text() == "4000\n"
        assert _group(child.pid) == before
        child.communicate(b"\n")


def test_who_may_not_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GROUPS", tmp_path / "none")
    with (
        pytest.raises(SystemExit, match="cannot be given a part of a core here"),
        confined(os.getpid(), 0.25),
    ):
        pass
