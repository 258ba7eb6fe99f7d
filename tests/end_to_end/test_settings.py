"""`client distill --budget N` with everything else in tuition.toml, and the images in ./data."""

import json
from pathlib import Path

from tests.client.toy import make_folder
from tests.end_to_end.command import Command
from tests.support.vendor_process import VendorProcess


def test_a_run_takes_what_is_not_typed_from_the_file(vendor_process: VendorProcess, tmp_path: Path) -> None:
    make_folder(tmp_path / "data", images=4)
    client = Command(tmp_path, vendor_process.url, vendor_process.create_key(quota=1000))
    (tmp_path / "tuition.toml").write_text(
        'target_domain = "red"\nimage_size = 32\n[distill]\nsteps = 3\nout = "runs/mine"\n'
    )
    client("distill", "--budget", "20")
    summary = json.loads((tmp_path / "runs" / "mine" / "summary.json").read_text())
    assert (summary["target_domain"], summary["steps"]) == ("red", 3)
    assert 0 < summary["queries_bought"] <= 20
