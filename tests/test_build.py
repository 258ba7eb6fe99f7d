"""What `make build` makes is whole: installed in an environment of its own, it is used from end to end."""

import os
import re
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.client.toy import make_folder

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
PACKAGES = ("client", "shared", "tuition", "vendor_service")
TUITION = "client/import/tuition"  # where the source has `tuition`
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def _environment() -> dict[str, str]:
    """Nothing that leads back to the source, or to an account of whoever runs the tests."""
    own = re.compile("PYTHON|TUITION_|VENDOR_")
    outer = {name: value for name, value in os.environ.items() if not own.match(name)}
    return outer | {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Built:
    """A source distribution and the wheel that was built from it."""

    sdist: Path
    wheel: Path


@dataclass(frozen=True)
class Installed:
    """An environment that has the wheel, and what the wheel depends on; a folder far from the source."""

    programs: Path
    folder: Path

    def __call__(self, program: str, *arguments: str, **variables: str) -> str:
        """Run one of its programs to its good end; what it printed."""
        done = subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.folder,
            env=_environment() | variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def vendor(self) -> Iterator[dict[str, str]]:
        """Its vendor with the bundled model: the environment of a customer."""
        with (self.folder / "vendor.log").open("w") as log:
            process = subprocess.Popen(
                [self.programs / "vendor", "serve", "--port", "0", "--first-key-to", "key"],
                cwd=self.folder,
                env=_environment() | {"VENDOR_DATABASE_URL": "sqlite:///vendor.db"},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        try:
            assert process.stdout is not None
            ready = re.search(r"ready on (http://\S+)", process.stdout.readline())
            assert ready is not None, (self.folder / "vendor.log").read_text()
            key = (self.folder / "key").read_text().strip()
            yield {"TUITION_VENDOR_URL": ready[1], "TUITION_API_KEY": key, "TUITION_CACHE": "cache.db"}
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return Built(sdist, wheel)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    home = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    command = [*pip, "install", "--quiet", "--no-index", "--no-deps", "--no-compile", str(built.wheel)]
    subprocess.run(command, env=_environment(), cwd=home, check=True)
    (site_packages,) = (home / "lib").glob("python*/site-packages")
    (site_packages / "onnx.py").write_text("raise ImportError")  # a run takes half as long without
    # A path from a .pth file is read as it is: the outer environment's own .pth files, which lead to the
    # source, do not count.
    (site_packages / "outer.pth").write_text(sysconfig.get_path("purelib"))
    return Installed(python.parent, tmp_path_factory.mktemp("elsewhere"))


def _of_packages(names: list[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(tuple(f"{each}/" for each in PACKAGES)))


def test_wheel_and_sdist_have_every_file_of_the_packages_and_no_other_code(built: Built) -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file()]
    source = [
        str(file.relative_to(ROOT))
        for file in files
        if not {"__pycache__", ".ipynb_checkpoints"} & {*file.parts}
    ]
    in_wheel = zipfile.ZipFile(built.wheel).namelist()
    assert _of_packages(in_wheel) == sorted(name.replace(TUITION, "tuition") for name in source)
    assert {name.partition("/")[0] for name in in_wheel} == {*PACKAGES, f"tuition-{VERSION}.dist-info"}
    with tarfile.open(built.sdist) as sdist:
        in_sdist = [each.name.partition("/")[2] for each in sdist.getmembers() if each.isfile()]
    assert _of_packages(in_sdist) == sorted(source)
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= {*in_sdist}
    assert not [name for name in in_sdist if name.startswith("tests/")]


def test_both_command_lines_say_the_version_and_the_wheel_alone_is_imported(installed: Installed) -> None:
    assert installed("client", "--version").split()[-1] == VERSION
    assert installed("vendor", "--version").split()[-1] == VERSION
    where = f"import {', '.join(PACKAGES)}; print(*[each.__path__[0] for each in ({', '.join(PACKAGES)})])"
    for path in installed("python", "-c", where).split():
        assert Path(path).is_relative_to(installed.programs.parent), path
    assert installed("python", "-c", "import client, tuition; print(tuition.plan is client.plan)") == "True\n"


def test_a_student_is_distilled_from_the_bundled_model_and_has_its_report(installed: Installed) -> None:
    make_folder(installed.folder / "shapes", images=4)
    student = "--student open_clip:icon-clip --image-size 64 --steps 2 --out run"
    with installed.vendor() as customer:
        data = "--data shapes --target-domain red --budget 100 --yes"
        installed("client", "distill", *data.split(), *student.split(), **customer)
    run = installed.folder / "run"
    assert "<svg" in (run / "report.html").read_text(encoding="utf-8")
    assert "held-out domain red" in (run / "README.md").read_text(encoding="utf-8")
