"""python -m benchmarks.pools: its rows, with the pool and without, are run one after the other."""

import sys
from pathlib import Path

import pytest

from benchmarks import pools, unlabelled
from benchmarks.records import Record
from client.options.vendor import VendorOptions
from client.progress import Display
from client.results.comparison_table import RunResult
from client.runs.comparison import ComparisonConfig, ComparisonRunner
from client.runs.connection import Connection
from tests.client.toy import draw, make_folder

_NOBODY = Connection(VendorOptions(vendor="http://vendor"), Display.of_nobody())


def test_every_row_is_run_in_a_folder_of_its_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A comparison that was begun over other images refuses; nothing is trained here."""
    toy = make_folder(tmp_path / "toy", images=1)
    (tmp_path / "pool").mkdir()
    draw("circle", "black", "white", seed=1).save(tmp_path / "pool" / "0.png")
    begun = set()

    def measured(configs: list[ComparisonConfig], name: str) -> list[Record]:
        begun.add(name)
        (config,) = configs
        ComparisonRunner(config, tmp_path / "runs" / name, _NOBODY, device="cpu")._begin()
        result = RunResult(config.variants[0].method, config.targets[0], 0, 0.5, 0.5, 9, 0, 1.0)
        return [Record(name, name, "", result)]

    monkeypatch.setattr(unlabelled, "icons", lambda: toy)
    monkeypatch.setattr(pools, "pool", lambda _: (str(tmp_path / "pool"),))
    monkeypatch.setattr(pools, "measured", measured)
    monkeypatch.setattr(sys, "argv", ["pools", "--targets", "red", "dark", "--seeds", "0"])
    pools.main()
    assert capsys.readouterr().out.count("| 50.0") >= len(pools.CHOICES)
    assert {
        f"pools-{target}-tf_efficientnet_lite0-96px-600-{n}" for target in ("red", "dark") for n in (0, 1)
    } <= begun
