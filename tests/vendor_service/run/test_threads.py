"""How threads wait for each other is settled before PyTorch is loaded, and no team of them is left over."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.forking import CONTEXT
from tests.support.tiny_clip import write_tiny_clip
from tests.vendor_service.given_settings import GivenSettings
from vendor_service.metrics import Metrics
from vendor_service.run.factory import load_engine
from vendor_service.run.model_specs import find_specs


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it is another OpenMP")
@pytest.mark.parametrize(("said", "turns"), [({}, 20_000), ({"GOMP_SPINCOUNT": "7"}, 7)])
def test_what_openmp_makes_of_it(said: dict[str, str], turns: int) -> None:
    usual = {name: os.environ[name] for name in os.environ if not name.startswith(("OMP", "GOMP"))}
    code = "from vendor_service.cli.main import main; main()"
    vendor = subprocess.Popen(
        [sys.executable, "-c", code, "serve", "--model", "none"],
        env={**usual, "OMP_DISPLAY_ENV": "verbose", **said},
        stderr=subprocess.PIPE,
        text=True,
    )
    with vendor:
        assert vendor.stderr is not None
        told = next((line for line in vendor.stderr if "GOMP_SPINCOUNT" in line), "")
        vendor.kill()  # OpenMP speaks when it is loaded; what the vendor goes on to import takes many seconds
    assert f"GOMP_SPINCOUNT = '{turns}'" in told


_TEAMS = """
import os
import time
import torch
from vendor_service.run.threads import make_apart

def threads():
    return len(os.listdir("/proc/self/task"))

def compute():
    torch.ones(1 << 20).exp()
    return threads()

before = threads()
meanwhile = make_apart(compute)
began = time.monotonic()
while threads() > before and time.monotonic() < began + 10:
    time.sleep(0.01)
print(meanwhile - before, threads() - before, compute() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it counts the threads in /proc")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a team takes two processors")
def test_the_team_that_computed_what_is_made_apart_ends_with_it() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", _TEAMS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "0", "1"]


def test_a_model_that_is_loaded_later_has_as_many_devices_and_threads_as_the_first(tmp_path: Path) -> None:
    name = write_tiny_clip(tmp_path / "tiny", seed=1)
    with CONTEXT.Pool(1) as fresh:
        assert fresh.apply(_devices_and_threads, (name,)) == [(2, 2)] * 3


def _devices_and_threads(name: str) -> list[tuple[int, int]]:
    """Of a model that is loaded three times, in a process that has computed nothing."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(4)
    (spec,) = find_specs(GivenSettings(model=(name,), device="auto", dtype="float32"))
    taken = []
    for _ in range(3):
        model = load_engine(spec, 0, Metrics()).model
        model.encode_texts(["a cat"])
        taken.append((len(model.devices), torch.get_num_threads()))
    return taken
