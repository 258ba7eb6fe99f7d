"""`import client`: what it loads, and that what it offers is documented."""

import re
import subprocess
import sys
from inspect import isfunction
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import client

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    "named", ["client", "client.DistillOptions, client.CompareOptions, client.EmbedOptions, client.Plan"]
)
def test_importing_the_client_loads_neither_torch_nor_http(named: str) -> None:
    code = f"import sys, client; {named}; sys.exit(not {{'torch', 'httpx', 'PIL'}}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_documented() -> None:
    told = "".join((DOCS / name).read_text() for name in ("python.md", "buying.md", "extending.md"))
    in_code = " ".join(re.findall(r"`[^`\n]+`|```python\n.*?```", told, re.DOTALL))
    assert set(client.__all__) <= set(re.findall(r"\w+", in_code))
    for name in client.__all__:
        assert getattr(client, name).__doc__, name


def test_every_result_has_its_json_a_run_in_its_parts() -> None:
    public = [getattr(client, name) for name in client.__all__]
    hints = [get_type_hints(each).get("return") for each in public if isfunction(each)]
    results = {kind for hint in hints for kind in (hint, *get_args(hint)) if kind in public}
    assert {client.Inspection, client.Reconciliation, client.Comparison, client.SwapCheck} <= results
    without = {kind for kind in results if not hasattr(kind, "to_json")}
    assert without == {client.Run, client.Student, client.DistillOptions}
