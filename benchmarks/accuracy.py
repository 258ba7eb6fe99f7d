"""Methods and recipes on the bundled icons: leave one domain out, several seeds, over a real vendor.

    make bench-accuracy

Prints the table of docs/results.md. Runs are kept in benchmarks/.runs, and finished ones are not run again.
"""

import argparse
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from client.comparison import Comparison, ComparisonConfig, Variant
from client.connection import Connection
from client.display import Display
from client.learning.recipe import Recipe
from client.results.comparison_table import as_markdown
from tests.vendor_process import VendorProcess

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "benchmarks" / ".runs"
RIVALS = ("zero-shot", "linear-probe", "erm", "erm+swad", "lp-ft", "kd", "simkd", "rise")
OURS = ("text-only", "image-only", "no-align", "unlimited", "vl2v-adip", "vl2v-adip+swad", "vl2v-adip+wise")


def main() -> None:
    """Run what has not been run, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--targets", nargs="+", default=[], help="domains to hold out (default: each in turn)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=[*RIVALS, *OURS], metavar="METHOD")
    parser.add_argument("--student", default="efficientnet_lite0")
    parser.add_argument("--image-size", type=int, default=64)
    arguments = parser.parse_args()

    config = ComparisonConfig(
        data=icons(),
        variants=[Variant(method, method, Recipe()) for method in arguments.methods],
        targets=arguments.targets,
        seeds=arguments.seeds,
        student=arguments.student,
        image_size=arguments.image_size,
    )
    print(compared(config, RUNS / f"accuracy-{arguments.student.replace(':', '-')}"))


def compared(config: ComparisonConfig, out: Path) -> str:
    """Run what has not been run of a comparison; its table."""
    with customer() as connection:
        comparison = Comparison(config, out, connection, device="cpu")
        return as_markdown(comparison.execute(), comparison.setting)


@contextmanager
def customer() -> Iterator[Connection]:
    """A customer of a vendor that sells the bundled model; what was bought once is kept."""
    with TemporaryDirectory() as books, VendorProcess(Path(books)) as vendor:
        key = Path(books) / "key"
        key.write_text(vendor.create_key())
        yield Connection(vendor.url, key, RUNS / "cache.db", Display())


def icons() -> Path:
    """The bundled images, unpacked once."""
    RUNS.mkdir(exist_ok=True)
    if not (RUNS / "icons").exists():
        with zipfile.ZipFile(ROOT / "examples" / "icons.zip") as archive:
            archive.extractall(RUNS)
    return RUNS / "icons"


if __name__ == "__main__":
    main()
