"""`client distill --budget N` with everything else in tuition.toml, and the images in ./data."""

import json
from io import StringIO
from pathlib import Path

import pytest

from tests.client.folders import write_trusted
from tests.client.toy import make_folder
from tests.end_to_end.command import TINY, Command
from tests.support.vendor_process import VendorProcess


def test_a_run_takes_what_is_not_typed_from_the_file(vendor_process: VendorProcess, tmp_path: Path) -> None:
    make_folder(tmp_path / "data", images=4)
    client = Command(tmp_path, vendor_process.url, vendor_process.create_key(quota=1000))
    write_trusted(
        'target_domain = "red"\nimage_size = 32\n[distill]\nsteps = 3\nout = "runs/mine"\n'
        'student = "test_efficientnet"\nstudent_weights = "backbone.safetensors"\n',
        tmp_path,
    )
    client("distill", "--budget", "20")
    summary = json.loads((tmp_path / "runs" / "mine" / "summary.json").read_text())
    assert (summary["target_domain"], summary["steps"]) == ("red", 3)
    assert 0 < summary["queries_bought"] <= 20


def test_a_cap_of_the_file_limits_and_agrees_to_nothing(
    vendor_process: VendorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "data", images=4)
    client = Command(tmp_path, vendor_process.url, vendor_process.create_key(quota=1000))
    write_trusted("max_spend = 1000000000000\n", tmp_path)
    monkeypatch.setattr("client.api.confirm.ASK_ABOVE_MICROS", 0)
    monkeypatch.setattr("sys.stdin", StringIO(""))
    embed = ("embed", "--text", "a", "--text", "b", "--out", "rows.npy")
    for command in (
        ("distill", *TINY, "--image-size", "32", "--budget", "20"),
        ("compare", *TINY, "--image-size", "32", "--seeds", "1", "--out", "table"),
        ("plan", *TINY, "--image-size", "32", "--probe", "30"),
        embed,
    ):
        refused = client(*command, code=2).stderr
        assert "Add --yes to agree, or a cap with --max-spend. Nothing was bought." in refused
    assert vendor_process.charges(client.api_key).entries == 0
    write_trusted("max_spend = 20\n", tmp_path)
    client(*embed, "--yes", code=3)
    assert vendor_process.charges(client.api_key).cost_micros == 20
    client(*embed, "--max-spend", "40")
    assert vendor_process.charges(client.api_key).cost_micros == 40
