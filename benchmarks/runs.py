"""Runs on the bundled icons over a real vendor, of which one is on record: benchmarks/runs.csv (records.py).

What is missing there is run, in benchmarks/.runs, and added.
"""

import argparse
import shutil
import sys
import tomllib
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from benchmarks.records import FORMER_STUDENTS, ROOT, Record, made_with, record, recorded, sha256
from client.data.bundled_set import ICONS, UNLABELLED
from client.learning.backbones import DEFAULT_BACKBONE
from client.learning.recipe import Recipe, Variant
from client.options.vendor import VendorOptions
from client.progress import Display
from client.results.comparison_table import Spread
from client.results.records import Accuracy
from client.results.run_result import RunResult
from client.runs.cells import Cell
from client.runs.comparison import ComparisonConfig, ComparisonRunner
from client.runs.config import RunConfig
from client.runs.connection import Connection
from client.runs.folder import RunFolder
from tests.support.vendor_process import VendorProcess

RUNS = ROOT / "benchmarks" / ".runs"
STYLES = ("colour", "emoji", "line", "pixel", "solid")
# What five minutes of one core are best spent on: benchmarks/notebook.md, Recipe.
IMAGE_SIZE, STEPS = 96, 600
_FORMER = "{} loads other weights today: what is on record of it can be printed, and no more"


def parser_of_runs(
    description: str | None, *, targets: Sequence[str], seeds: Sequence[int], on_record: bool = False
) -> argparse.ArgumentParser:
    """A parser of what all runs of a table have in common; `on_record` is a table of lines in runs.csv."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    student = str if on_record else still_trained
    parser.add_argument("--student", default=DEFAULT_BACKBONE, type=student, help="default: %(default)s")
    parser.add_argument("--image-size", type=int, default=IMAGE_SIZE)
    parser.add_argument("--steps", type=int, default=STEPS, help="of distilling, or of fine-tuning")
    parser.add_argument("--targets", nargs="+", default=list(targets), help="styles to hold out in turn")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    return parser


def still_trained(student: str) -> str:
    """The name of a backbone that is trained with the weights of its runs on record.

    Raises:
        argparse.ArgumentTypeError: it is a former student.
    """
    if student in FORMER_STUDENTS:
        raise argparse.ArgumentTypeError(_FORMER.format(student))
    return student


def config_of(
    arguments: argparse.Namespace,
    target: str,
    seed: int,
    *variants: Variant,
    data: Path | None = None,
    unlabelled: tuple[str, ...] = (),
) -> ComparisonConfig:
    """Runs of one style and seed; by default of VL2V-ADiP with the default recipe."""
    default = Variant("vl2v-adip", "vl2v-adip", Recipe().with_steps(arguments.steps))
    return ComparisonConfig(
        RunConfig(
            data=data or icons(),
            student=arguments.student,
            image_size=arguments.image_size,
            recipe=default.recipe,
            unlabelled=unlabelled,
        ),
        variants=variants or (default,),
        targets=[target],
        seeds=[seed],
    )


def measured(configs: Sequence[ComparisonConfig]) -> list[Record]:
    """The runs of comparisons of one style and seed each, from the record, the missing ones run first.

    Rows of a former student cannot be run: where a run is missing, they are left out, and named on stderr.

    Raises:
        SystemExit: no row is left.
    """
    known = recorded()
    parts = [(config, comparison_of(config).cells) for config in configs]
    missing = [(config, [cell for cell in cells if made_with(cell) not in known]) for config, cells in parts]
    former = {config.run.student for config in configs} & {*FORMER_STUDENTS}
    left_out = Counter(cell.variant.name for _, cells in missing for cell in cells if former)
    for row, runs in left_out.items():
        print(f"Left out, for {runs} of its runs are not on record: {row}", file=sys.stderr)
    if not former and any(cells for _, cells in missing):
        with customer() as connection:
            for config, cells in missing:
                if cells:
                    record(_run(config, cells, connection))
        known = recorded()
    kept = [cell for _, cells in parts for cell in cells if cell.variant.name not in left_out]
    if not kept:
        raise SystemExit(_FORMER.format(*former))
    return [known[made_with(cell)].under(cell.variant.name) for cell in kept]


def _run(config: ComparisonConfig, cells: Sequence[Cell], connection: Connection) -> list[Record]:
    _forget(cells, RunFolder(_folder_of(config)))
    comparison = comparison_of(replace(config, variants=[cell.variant for cell in cells]), connection)
    results = {result.method: result for result in comparison.execute()}
    teacher, name = comparison.setting.teacher or "", _folder_of(config).name
    return [
        Record(made_with(cell), name, teacher if cell.buys else "", results[cell.variant.name])
        for cell in cells
    ]


def _forget(cells: Iterable[Cell], folder: RunFolder) -> None:
    """Delete what lies of runs that are not on record, so that one whose line was deleted is run anew.

    So is the digest of the images that all began with: each run on record has one of its own.
    """
    identity = folder.path / "comparison.json"
    left = [cell.run.path for cell in cells if cell.run.path.exists()]
    if not left and not identity.exists():
        return
    with folder.claimed():
        for path in left:
            shutil.rmtree(path)
        if identity.exists():
            kept = folder.read(identity)
            kept.pop("images", None)
            folder.write(identity, kept)


def comparison_of(config: ComparisonConfig, connection: Connection | None = None) -> ComparisonRunner:
    """A comparison in its folder; without a connection it can say its cells, and buy nothing."""
    nobody = Connection(VendorOptions(vendor="http://vendor"), Display())
    return ComparisonRunner(config, _folder_of(config), connection or nobody, device="cpu")


def _folder_of(config: ComparisonConfig) -> Path:
    """Where its runs are, with all others over the same images."""
    steps = max(variant.recipe.steps for variant in config.variants)
    run = config.run
    name = f"{run.data.parent.name}-{run.student.replace(':', '-')}-{run.image_size}px-{steps}"
    return RUNS / (f"{name}-pool-{config.targets[0]}-{run.use_at_most}" if run.unlabelled else name)


def trained(config: ComparisonConfig, connection: Connection) -> Cell:
    """The one run of a comparison, trained if it is not there."""
    comparison = comparison_of(config, connection)
    comparison.execute()
    return comparison.cells[0]


def cells(by_style: Sequence[Sequence[RunResult | Accuracy]]) -> str:
    """Of a table: the accuracy on each style that was held out, their mean, and the mean in-domain.

    Each is the mean and deviation over seeds; there is a list of these for each style.
    """
    outside, inside = (
        [[float(getattr(each, part) or 0) for each in seeds] for seeds in by_style]
        for part in ("out_of_domain", "in_domain")
    )
    means = [[fmean(seed) for seed in zip(*styles, strict=True)] for styles in (outside, inside)]
    return " | ".join(Spread.of(shares).show() for shares in [*outside, *means])


@contextmanager
def customer(*served: str) -> Iterator[Connection]:
    """A customer of a vendor, which sells the bundled model unless the options of `vendor serve` say
    otherwise; what was bought once is kept."""
    with TemporaryDirectory() as books, VendorProcess(Path(books), *served) as vendor:
        key = Path(books) / "key"
        key.write_text(vendor.create_key())
        options = VendorOptions(vendor=vendor.url, api_key_file=key, cache=RUNS / "cache.db")
        yield Connection(options, Display())


def icons() -> Path:
    """The bundled images, unpacked once."""
    return unpacked(ICONS)


def pool(target: str) -> tuple[str, ...]:
    """The folders of the bundled pool that may be learnt from where a style is held out."""
    excluded = tomllib.loads((ROOT / "examples" / "unlabelled.toml").read_text())["exclude"][target]
    folders = sorted(each for each in unpacked(UNLABELLED).iterdir() if each.is_dir())
    return tuple(str(each) for each in folders if each.name not in excluded)


def unpacked(archive: Path) -> Path:
    """The one folder of an archive, unpacked once, in a folder whose name tells this archive from others."""

    def unpack(folder: Path) -> None:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)

    return made_once(f"{archive.stem}-{sha256(archive)[:12]}", unpack) / archive.stem


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """A folder below `RUNS` that is made once; nobody sees a part of it, also where two begin at once."""
    RUNS.mkdir(exist_ok=True)
    folder = RUNS / name
    if not folder.exists():
        with TemporaryDirectory(dir=RUNS) as scratch:
            make(Path(scratch, name))
            with suppress(OSError):  # somebody else was faster
                Path(scratch, name).rename(folder)
    return folder
