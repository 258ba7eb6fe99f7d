"""`import client`: what it loads, and that what it offers is documented."""

import re
import subprocess
import sys
from pathlib import Path

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
    told = "".join((DOCS / name).read_text() for name in ("python.md", "buying.md"))
    in_code = " ".join(re.findall(r"`[^`\n]+`|```python\n.*?```", told, re.DOTALL))
    assert set(client.__all__) <= set(re.findall(r"\w+", in_code))
    for name in client.__all__:
        assert getattr(client, name).__doc__, name
