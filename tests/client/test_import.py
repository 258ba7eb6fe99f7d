"""`import tuition`: what it loads, and that what it offers is documented."""

import re
import subprocess
import sys
from inspect import isfunction
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import client
import tuition
from client import errors

DOCS = Path(__file__).parents[2] / "docs"


def test_importing_it_and_naming_options_loads_nothing_heavy() -> None:
    named = "tuition.DistillOptions, tuition.CompareOptions, tuition.EmbedOptions, tuition.Plan"
    heavy = {"torch", "httpx", "PIL", "pandas", "IPython"}
    code = f"import sys, tuition; {named}; sys.exit(not {heavy}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_both_names_offer_the_same_objects_and_completion_shows_them_alone() -> None:
    assert dir(tuition) == dir(client) == sorted(dir(tuition))
    assert all(getattr(tuition, name) is getattr(client, name) for name in dir(tuition))
    assert not [name for name in dir(tuition) if name.startswith("_")]
    with pytest.raises(AttributeError, match="Tuition's API has no 'distil'"):
        _ = tuition.distil  # type: ignore[attr-defined]
    public = {name for name, kind in vars(errors).items() if isinstance(kind, type) and _is_error(kind)}
    assert public <= {*dir(tuition)}


def _is_error(kind: type) -> bool:
    return issubclass(kind, tuition.ClientError)


def test_documents_call_it_by_its_documented_name() -> None:
    pages = [*DOCS.glob("*.md"), DOCS.parent / "README.md", *(DOCS.parent / "examples").glob("*.ipynb")]
    assert not [page.name for page in pages if re.search(r"\bimport client\b", page.read_text())]


def test_every_public_name_is_documented() -> None:
    told = "".join((DOCS / name).read_text() for name in ("python.md", "buying.md", "extending.md"))
    in_code = " ".join(re.findall(r"`[^`\n]+`|```python\n.*?```", told, re.DOTALL))
    assert set(dir(tuition)) <= set(re.findall(r"\w+", in_code))
    for name in dir(tuition):
        assert getattr(tuition, name).__doc__, name


def test_every_result_has_its_json_a_run_in_its_parts() -> None:
    public = [getattr(tuition, name) for name in dir(tuition)]
    hints = [get_type_hints(each).get("return") for each in public if isfunction(each)]
    results = {kind for hint in hints for kind in (hint, *get_args(hint)) if kind in public}
    assert {client.Inspection, client.Reconciliation, client.Comparison, client.SwapCheck} <= results
    without = {kind for kind in results if not hasattr(kind, "to_json")}
    assert without == {client.Run, client.Student, client.DistillOptions}
