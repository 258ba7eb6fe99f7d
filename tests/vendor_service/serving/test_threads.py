"""How threads wait for each other is settled before PyTorch is loaded, unless an operator has settled it."""

import os
import subprocess
import sys

import pytest


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
