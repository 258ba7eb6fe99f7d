"""How threads wait for each other is settled before PyTorch is loaded, unless a user has settled it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow  # it imports what `client distill` does, to see one setting
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it is another OpenMP")
@pytest.mark.parametrize(
    ("said", "turns"),
    [
        ({}, 20_000),
        ({"GOMP_SPINCOUNT": "7"}, 7),
        ({"OMP_WAIT_POLICY": "passive"}, 0),
    ],
)
def test_what_openmp_makes_of_it(said: dict[str, str], turns: int, tmp_path: Path) -> None:
    (tmp_path / "one" / "cat").mkdir(parents=True)
    usual = {name: os.environ[name] for name in os.environ if not name.startswith(("OMP", "GOMP"))}
    told = subprocess.run(
        [sys.executable, "-m", "client", "distill",
         "--data", str(tmp_path), "--target-domain", "none", "--method", "erm"],
        env={**usual, "OMP_DISPLAY_ENV": "verbose", **said}, capture_output=True, text=True, check=False,
    ).stderr  # fmt: skip
    assert f"GOMP_SPINCOUNT = '{turns}'" in told
