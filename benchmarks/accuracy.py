"""Methods and recipes on the bundled icons: leave one domain out, several seeds, over a real vendor.

    make bench-accuracy

Prints the table of docs/results.md. Its runs are those of benchmarks/runs.csv (records.py tells how to have
them run again); what is missing there is run, in benchmarks/.runs, and added.
"""

import argparse
import shutil
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import TypeVar

from benchmarks.records import FORMER_STUDENTS, ROOT, Record, made_with, record, recorded, sha256
from client.data.bundled_set import ICONS
from client.learning.backbones import DEFAULT_BACKBONE
from client.learning.recipe import Recipe, Variant
from client.options.vendor import VendorOptions
from client.progress import Display
from client.results.comparison_table import RunResult, Spread, as_markdown
from client.results.records import Accuracy
from client.runs.cells import Cell
from client.runs.comparison import ComparisonConfig, ComparisonRunner
from client.runs.connection import Connection
from client.runs.folder import RunFolder
from tests.support.vendor_process import VendorProcess

RUNS = ROOT / "benchmarks" / ".runs"
# What five minutes of one core are best spent on: benchmarks/notebook.md, Recipe.
IMAGE_SIZE, STEPS = 96, 600
RIVALS = ("zero-shot", "linear-probe", "erm", "erm+swad", "lp-ft", "kd", "simkd", "rise")
OURS = ("label-only", "text-only", "image-only", "no-align", "vl2v-adip", "vl2v-adip+swad")
_FORMER = "{} loads other weights today: what is on record of it can be printed, and no more"
Row = TypeVar("Row")
Found = TypeVar("Found")


class NotOnRecord(SystemExit):
    """A former student has no row of a table on record, and none can be run."""


def main() -> None:
    """Run what has not been run, then print the table."""
    parser = parser_of_runs(__doc__)
    parser.add_argument(
        "--targets", nargs="+", default=[], help="domains to hold out (default: each in turn)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=[*RIVALS, *OURS, "unlimited"], metavar="METHOD")
    arguments = parser.parse_args()

    recipe = Recipe().with_steps(arguments.steps)
    config = ComparisonConfig(
        data=icons(),
        variants=[Variant(row, row, recipe) for row in arguments.methods],
        targets=arguments.targets,
        seeds=arguments.seeds,
        student=arguments.student,
        image_size=arguments.image_size,
    )
    print(compared(config, name_of("accuracy", arguments)))


def parser_of_runs(description: str | None, *, on_record: bool = True) -> argparse.ArgumentParser:
    """A parser of what all runs of a table have in common; `on_record` is a table of lines in runs.csv."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--student",
        default=DEFAULT_BACKBONE,
        type=str if on_record else still_trained,
        help="the backbone (default: %(default)s)",
    )
    parser.add_argument("--image-size", type=int, default=IMAGE_SIZE)
    parser.add_argument("--steps", type=int, default=STEPS, help="of distilling, or of fine-tuning")
    return parser


def name_of(table: str, arguments: argparse.Namespace) -> str:
    """What the runs of a table go by: the name of their folder, and of their lines on record."""
    student = arguments.student.replace(":", "-")
    return f"{table}-{student}-{arguments.image_size}px-{arguments.steps}"


def still_trained(student: str) -> str:
    """The name of a backbone that is trained with the weights of its runs on record.

    Raises:
        argparse.ArgumentTypeError: it is a former student.
    """
    if student in FORMER_STUDENTS:
        raise argparse.ArgumentTypeError(_FORMER.format(student))
    return student


def compared(config: ComparisonConfig, name: str) -> str:
    """The table of a comparison; `name` is that of its folder, and of its lines on record."""
    records = measured([config], name)
    found = {each.result.method for each in records}
    config = replace(config, variants=[variant for variant in config.variants if variant.name in found])
    records.sort(key=lambda each: [variant.name for variant in config.variants].index(each.result.method))
    teacher = next((each.teacher for each in reversed(records) if each.teacher), None)
    setting = replace(_comparison(config, name).setting, teacher=teacher)
    return as_markdown([each.result for each in records], setting)


def measured(configs: Iterable[ComparisonConfig], name: str) -> list[Record]:
    """The runs of comparisons, from the record; what is missing there is run, and put there.

    Rows of a former student cannot be run: where a run is missing, they are left out, and named on stderr.

    Raises:
        NotOnRecord: no row is left.
    """
    parts = _that_can_be_had(
        [
            (replace(config, targets=[target], seeds=[seed]), list(cells))
            for config in configs
            for (target, seed), cells in groupby(_comparison(config, name).cells, key=_target_and_seed)
        ]
    )
    _measure(parts, name)
    known = recorded()
    return [known[made_with(cell)].under(cell.variant.name) for _, cells in parts for cell in cells]


def measured_rows(rows: Iterable[Row], measure: Callable[[Row], Found]) -> Iterator[tuple[Row, Found]]:
    """What each row of a table comes to; rows that are `NotOnRecord` are left out.

    Raises:
        NotOnRecord: no row is left.
    """
    is_empty, reason = True, None
    for row in rows:
        try:
            found = measure(row)
        except NotOnRecord as error:
            reason = error
        else:
            is_empty = False
            yield row, found
    if is_empty and reason is not None:
        raise reason


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


def in_domain(result: RunResult) -> float:
    """Accuracy on the hold-outs, which the bundled icons always have."""
    assert result.in_domain is not None
    return result.in_domain


def _that_can_be_had(
    parts: Sequence[tuple[ComparisonConfig, list[Cell]]],
) -> list[tuple[ComparisonConfig, list[Cell]]]:
    """The same without the rows of former students that lack a run on record.

    Raises:
        NotOnRecord: no row is left.
    """
    known = recorded()
    of_former = [cells for config, cells in parts if config.student in FORMER_STUDENTS]
    lacking = Counter(
        cell.variant.name for cells in of_former for cell in cells if made_with(cell) not in known
    )
    for row, runs in lacking.items():
        print(f"Left out, for {runs} of its runs are not on record: {row}", file=sys.stderr)
    kept = [(config, [cell for cell in cells if cell.variant.name not in lacking]) for config, cells in parts]
    if lacking and not any(cells for _, cells in kept):
        raise NotOnRecord(_FORMER.format(parts[0][0].student))
    return kept


def _measure(parts: Iterable[tuple[ComparisonConfig, list[Cell]]], name: str) -> None:
    """Run what is missing on the record; each part is put there when it has been run."""
    known = recorded()
    unknown = [(config, [cell for cell in cells if made_with(cell) not in known]) for config, cells in parts]
    missing = [(config, cells) for config, cells in unknown if cells]
    if not missing:
        return
    with customer() as connection:
        for config, cells in missing:
            _forget(cells, name)
            part = replace(config, variants=[cell.variant for cell in cells])
            comparison = _comparison(part, name, connection)
            results = {result.method: result for result in comparison.execute()}
            teacher = comparison.setting.teacher or ""
            record(
                Record(made_with(cell), name, teacher if cell.buys else "", results[cell.variant.name])
                for cell in cells
            )


def _forget(cells: Iterable[Cell], name: str) -> None:
    """Delete what lies of runs that are not on record, so that one whose line was deleted is run anew.

    So is the digest of the images that all began with: each run on record has one of its own.
    """
    folder = RunFolder(RUNS / name)
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


def _comparison(
    config: ComparisonConfig, name: str, connection: Connection | None = None
) -> ComparisonRunner:
    nobody = Connection(VendorOptions(vendor="http://vendor"), Display())
    return ComparisonRunner(config, RUNS / name, connection or nobody, device="cpu")


def _target_and_seed(cell: Cell) -> tuple[str, int]:
    return cell.target, cell.config.seed


@contextmanager
def customer(*options: str) -> Iterator[Connection]:
    """A customer of a vendor, which sells the bundled model unless the `options` of `vendor serve` say
    otherwise; what was bought once is kept."""
    with TemporaryDirectory() as books, VendorProcess(Path(books), *options) as vendor:
        key = Path(books) / "key"
        key.write_text(vendor.create_key())
        yield Connection(
            VendorOptions(vendor=vendor.url, api_key_file=key, cache=RUNS / "cache.db"), Display()
        )


def icons() -> Path:
    """The bundled images, unpacked once."""
    return unpacked(ICONS)


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


if __name__ == "__main__":
    main()
