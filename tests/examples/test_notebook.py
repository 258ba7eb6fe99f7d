"""examples/distill.ipynb: its code cells, in their order, against the real vendor."""

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from client.data.bundled_set import ICONS
from tests.client.toy import make_folder
from tests.support.vendor_process import VendorProcess

NOTEBOOK = Path(__file__).parents[2] / "examples" / "distill.ipynb"
# A few steps on small images show that it works.
BRIEFLY = {"DATA": "toy", "TARGET": "red", "BUDGET": 100, "STEPS": 3, "IMAGE_SIZE": 32, "OUT": "student"}


def _cells() -> list[dict[str, Any]]:
    content = json.loads(NOTEBOOK.read_text())
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def test_every_cell_runs(
    vendor_process: VendorProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_folder(tmp_path / "toy", images=5)
    api_key = vendor_process.create_key(quota=100)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUITION_VENDOR_URL", vendor_process.url)
    monkeypatch.setenv("TUITION_API_KEY", api_key)
    monkeypatch.setenv("TUITION_CACHE", str(tmp_path / "cache.db"))
    parameters, *rest = _cells()
    assert parameters["metadata"]["tags"] == ["parameters"]
    names: dict[str, Any] = {}
    exec("".join(parameters["source"]), names)
    assert set(names) - {"__builtins__"} == set(BRIEFLY)
    names |= BRIEFLY
    for cell in rest:
        assert not cell["outputs"]
        exec("".join(cell["source"]), names)
    charges = vendor_process.charges(api_key)
    said = capsys.readouterr().out
    assert f"{charges.queries} queries for {charges.cost_micros} micros" in said
    assert len(names["predictions"].classes) == 3
    assert Path("student.onnx").exists()
    assert Path("student/report.html").exists()


def test_the_icons_that_it_unpacks_have_its_target() -> None:
    names: dict[str, Any] = {}
    exec("".join(_cells()[0]["source"]), names)
    files = ZipFile(ICONS).namelist()
    assert any(file.startswith(f"icons/{names['TARGET']}/") for file in files)
