"""What a command that only helps or reads leaves unimported, since its user waits for all that it imports."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_HEAVY = {"torch", "torchvision", "open_clip", "timm", "onnxruntime", "PIL", "alembic", "mako"}
_CLIENT = _HEAVY | {"sqlalchemy", "httpx", "pandas"}
_RUN = """
import json, sys
from {package}.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print()
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize(
    ("package", "arguments", "absent"),
    [
        ("client", "--help", _CLIENT),
        ("client", "usage --help", _CLIENT),
        ("client", "distill --help", _CLIENT),
        ("vendor_service", "--help", _HEAVY),
        ("vendor_service", "serve --help", _HEAVY),
        ("vendor_service", "accounts list", _HEAVY),
        ("vendor_service", "db current", _HEAVY),
    ],
)
def test_a_command_that_helps_or_reads_imports_nothing_heavy(
    tmp_path: Path, package: str, arguments: str, absent: set[str]
) -> None:
    environment = os.environ | {"VENDOR_DATABASE_URL": f"sqlite:///{tmp_path / 'books.db'}"}
    if "--help" not in arguments:
        upgrade = [sys.executable, "-m", "vendor_service", "db", "upgrade"]
        subprocess.run(upgrade, check=True, env=environment)
    command = [sys.executable, "-c", _RUN.format(package=package), *arguments.split()]
    ended = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE)
    assert not absent.intersection(json.loads(ended.stdout.splitlines()[-1]))
