"""`tools/install.py`: uv with pip's settings, and pip where uv cannot."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools.changelog import ROOT
from tools.install import as_variables


def test_settings_of_pip_are_handed_to_uv() -> None:
    listed = r"""
:env:.disable-pip-version-check='1'
:env:.index-url='https://env.example/simple'
global.cert='/etc/ca bundle.crt'
global.extra-index-url='\nhttps://one.example/simple\nhttps://two.example/simple'
global.find-links='/wheels\n/more'
global.index-url='https://global.example/simple'
global.trusted-host='one.example two.example'
install.index-url='https://install.example/simple'
list.format='json'
"""
    assert as_variables(listed) == {
        "SSL_CERT_FILE": "/etc/ca bundle.crt",
        "UV_DEFAULT_INDEX": "https://env.example/simple",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INSECURE_HOST": "one.example two.example",
    }
    assert as_variables("") == {}


@pytest.mark.parametrize("setting", ["global.pre='true'", "install.no-index='true'", "global.user='yes'"])
def test_a_setting_that_uv_does_not_have_is_left_to_pip(setting: str) -> None:
    assert as_variables(f"{setting}\nglobal.timeout='9'") is None


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("install") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_it_is_installed_by_uv_and_by_pip_where_uv_fails(
    installer: str, environment: Path, tmp_path: Path
) -> None:
    wheel = _wheel(tmp_path, f"made_for_{installer}")
    broken = tmp_path / "bin" / "uv"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 2\n", encoding="utf-8")
    broken.chmod(0o755)
    first = broken.parent if installer == "pip" else Path(sys.executable).parent
    done = subprocess.run(
        [environment / "bin" / "python", ROOT / "tools" / "install.py", "--quiet", "--no-index", wheel],
        env={**os.environ, "PATH": f"{first}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    by = next(environment.glob(f"lib/*/site-packages/made_for_{installer}-1.dist-info/INSTALLER"))
    assert by.read_text(encoding="utf-8").strip() == installer
    assert ("pip is asked" in done.stderr) == (installer == "pip")


def _wheel(folder: Path, name: str) -> Path:
    path = folder / f"{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", "")
        file.writestr(f"{name}-1.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        file.writestr(
            f"{name}-1.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        file.writestr(
            f"{name}-1.dist-info/RECORD",
            f"{name}.py,,\n{name}-1.dist-info/METADATA,,\n{name}-1.dist-info/WHEEL,,\n{name}-1.dist-info/RECORD,,\n",
        )
    return path
