"""What an installation takes: megabytes by extra, and how long `import tuition` takes.

    python -m benchmarks.installation

The packages that a row brings are counted as they lie in this environment, with their dependencies and
without bytecode; NVIDIA's libraries, which PyPI's PyTorch brings on Linux, are left out.
"""

import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path
from statistics import median

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
_OF_GPUS = ("nvidia-", "cuda-", "triton")


def brought(requirements: Iterable[str]) -> set[str]:
    """The installed packages that these requirements bring."""
    found, names = [Requirement(line) for line in requirements], set[str]()
    for each in found:
        name = canonicalize_name(each.name)
        if name.startswith(_OF_GPUS) or (each.marker and not each.marker.evaluate({"extra": ""})):
            continue
        names.add(name)
        for extra in each.extras or ("",):
            for line in distribution(name).requires or ():
                one = Requirement(line)
                if (one.marker is None or one.marker.evaluate({"extra": extra})) and one not in found:
                    found.append(Requirement(str(one).partition(";")[0]))
    return names


def megabytes(packages: Iterable[str]) -> float:
    """The size of their files."""
    files = [file for name in packages for file in distribution(name).files or ()]
    paths = {Path(str(file.locate())) for file in files if file.suffix != ".pyc"}
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def own_megabytes() -> float:
    """The size of the wheel's own files."""
    folders = [ROOT / name for name in ("client", "shared", "vendor_service")]
    files = [file for folder in folders for file in folder.rglob("*") if file.suffix != ".pyc"]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def import_milliseconds(module: str) -> float:
    """How long a new process takes to import a module, beyond Python's own start: a median of nine."""
    code = f"import time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"
    command = [sys.executable, "-c", code]
    took = [subprocess.run(command, capture_output=True, check=True, text=True).stdout for _ in range(9)]
    return 1000 * median(map(float, took))


def main() -> None:
    """Print the table of the README."""
    text = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    base, extras = text["project"]["dependencies"], text["project"]["optional-dependencies"]
    rows = {"the group `student`": text["dependency-groups"]["student"], "`tuition`": base}
    rows |= {f"`tuition[{name}]`": [*base, *extras[name]] for name in ("serve", "vendor", "int8", "parquet")}
    print("| installed | MB |\n|---|---:|")
    for name, requirements in rows.items():
        print(f"| {name} | {own_megabytes() + megabytes(brought(requirements)):,.0f} |")
    print(f"\n`import tuition`: {import_milliseconds('tuition'):.0f} ms")


if __name__ == "__main__":
    main()
