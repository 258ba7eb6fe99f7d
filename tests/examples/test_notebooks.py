"""The notebooks of examples/ run in a real kernel, and show what they should."""

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import nbformat
import pytest
from nbclient import NotebookClient

from client.data.bundled_set import ICONS
from tests.client.toy import make_folder, tiny_student
from tests.client.vendors.servers import ApiServer, listening
from tests.client.vendors.servers.apis import KEY, cohere
from tests.support.vendor_process import VendorProcess

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = ("distill", "own_method", "other_teacher")
# A few steps of a small student on small images show that it works.
BRIEFLY: dict[str, Any] = {"DATA": "toy", "TARGET": "red", "STEPS": 2, "IMAGE_SIZE": 32, "OUT": "out"}
TINY: dict[str, Any] = {"STUDENT": "test_efficientnet", "WEIGHTS": "backbone.safetensors"}


def _parameters(name: str) -> tuple[Any, dict[str, Any]]:
    """A notebook, and what its cell of parameters sets."""
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    (cell,) = (each for each in notebook.cells if "parameters" in each.metadata.get("tags", ()))
    names: dict[str, Any] = {}
    exec(cell.source, names)
    del names["__builtins__"]
    return cell, names | {"": notebook}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_folder(tmp_path / "toy", images=5)
    tiny_student(tmp_path)
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("TUITION_CACHE", str(tmp_path / "cache.db"))
    return tmp_path


@pytest.fixture
def executed(folder: Path) -> Any:
    """Runs a notebook with other parameters; the text of its outputs as HTML and as text, in their order."""

    def run(name: str, **given: Any) -> str:
        cell, names = _parameters(name)
        notebook = names.pop("")
        assert set(given) <= set(names)
        cell.source = "\n".join(f"{key} = {value!r}" for key, value in (names | given).items())
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
        for cell in notebook.cells:  # a result, below the progress where it is asked for
            assert len(cell.get("outputs", ())) <= 1 + ("tuition.Display()" in cell.source)
        outputs = [each for cell in notebook.cells for each in cell.get("outputs", ())]
        return "\n".join(each.get("text") or "".join(each["data"].values()) for each in outputs)

    return run


def test_a_first_run(
    executed: Any, folder: Path, vendor_process: VendorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    api_key = vendor_process.create_key(quota=100)
    monkeypatch.setenv("TUITION_VENDOR_URL", vendor_process.url)
    monkeypatch.setenv("TUITION_API_KEY", api_key)
    shown = executed("distill", **BRIEFLY, BUDGET=100)
    charges = vendor_process.charges(api_key)
    assert f"<b>{charges.queries}</b>queries to buy" in shown
    assert f"<b>{charges.queries}</b>queries bought" in shown
    assert shown.count('class="tuition-card"') == 3
    assert (folder / "out.onnx").exists()
    assert (folder / "out" / "report.html").exists()


def test_a_method_of_ones_own(executed: Any) -> None:
    shown = executed("own_method", **BRIEFLY, **TINY)
    assert "Comparison on toy" in shown
    assert "<td>smoothed</td>" in shown


def test_another_vendors_teacher(executed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COHERE_API_KEY", KEY)
    server = ApiServer(cohere)
    with listening(server) as address:
        shown = executed("other_teacher", **BRIEFLY, **TINY, VENDOR=address, BUDGET=100)
    assert server.charged > 0
    assert "The teacher names the class of" in shown
    assert "Student: vl2v-adip, red held out" in shown


def test_they_are_kept_without_outputs_and_the_icons_have_their_target() -> None:
    for name in NOTEBOOKS:
        _, names = _parameters(name)
        assert not [cell for cell in names[""].cells if cell.get("outputs") or cell.get("execution_count")]
        assert any(file.startswith(f"icons/{names['TARGET']}/") for file in ZipFile(ICONS).namelist())
    assert {each.stem for each in EXAMPLES.glob("*.ipynb")} == {*NOTEBOOKS}
