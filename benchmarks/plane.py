"""The plane of labels and queries: the best method that asks nothing, and ours, cell by cell.

    python -m benchmarks.plane                                  # the row of all labels, which is on record
    python -m benchmarks.plane --labels 1 4 16 all --budgets 54 250 1000 5000 all

Cells are lines of benchmarks/runs.csv; what is missing there is run (runs.py). With fewer labels they are
`client compare --labels --budgets` on the bundled icons with their pool: images that lose their labels join
the pool. `--write` makes what is printed the plane that `client plan` reads, client/results/plane.json.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from benchmarks.accuracy import Row
from benchmarks.plots import heat_map
from benchmarks.records import ROOT
from benchmarks.runs import STYLES, config_of, icons, measured, parser_of_runs, pool
from client.results.plane import Plane, PlaneCell
from client.results.run_result import RunResult
from client.runs.comparison import ComparisonConfig

FILE = ROOT / "client" / "results" / "plane.json"
# The best method that asks nothing, ours, and ours with the pool.
FREE, OURS, POOLED = Row("label-only"), Row("vl2v-adip"), Row("vl2v-adip@pool")

Place = tuple[str, int | None, int | None]


def main() -> None:
    """Run what is missing, and print the plane."""
    parser = parser_of_runs(__doc__, targets=STYLES, seeds=(0, 1, 2))
    parser.set_defaults(image_size=128, steps=1200)
    parser.add_argument("--labels", type=_number, nargs="+", default=[None], help="a class")
    parser.add_argument("--budgets", type=_number, nargs="+", default=[None], help="where a pool is bought")
    parser.add_argument("--write", action="store_true", help="what is printed, for `client plan`")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it too, as SVG")
    arguments = parser.parse_args()
    runs: dict[Place, list[RunResult]] = {}
    for place, config in _configs(arguments):
        runs.setdefault(place, []).extend(each.result for each in measured([config]))
    plane = Plane(
        image_size=arguments.image_size,
        steps=arguments.steps,
        styles=arguments.targets,
        seeds=len(arguments.seeds),
        cells=[
            PlaneCell(
                labels=_all_labels(arguments.targets) if labels is None else labels,
                queries=round(fmean(run.queries for run in cell)),
                accuracy=round(100 * fmean(run.out_of_domain for run in cell), 1),
            )
            for (_, labels, _), cell in runs.items()
        ],
    )
    if arguments.write:
        FILE.write_text(plane.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if arguments.plot is not None:
        arguments.plot.write_text(_drawn(runs), encoding="utf-8")
    for labels in sorted({cell.labels for cell in plane.cells}):
        row = sorted((c.queries, c.accuracy) for c in plane.cells if c.labels == labels)
        print(f"{labels:.0f} labels a class:", "  ".join(f"{q:,.0f}: {share:.1f}" for q, share in row))


def _drawn(runs: Mapping[Place, Sequence[RunResult]]) -> str:
    """The plane as a picture: what asks nothing, and ours with so much of the pool."""
    return heat_map(
        {
            (labels, 0 if row == FREE.words else budget): 100 * fmean(run.out_of_domain for run in cell)
            for (row, labels, budget), cell in runs.items()
            if row != OURS.words
        }
    )


def _number(word: str) -> int | None:
    return None if word == "all" else int(word)


def _configs(arguments: argparse.Namespace) -> Iterator[tuple[Place, ComparisonConfig]]:
    """One run of each cell, style and seed."""
    for seed in arguments.seeds:
        for labels in arguments.labels:
            for target in arguments.targets:
                for row, budget in _rows(labels, arguments.budgets):
                    folders = pool(target) if row.pool else ()
                    config = config_of(
                        arguments, target, seed, row.variant(arguments.steps), unlabelled=folders
                    )
                    budgets = () if budget is None else (budget,)
                    yield (row.words, labels, budget), replace(config, labels=[labels], budgets=budgets)


def _rows(labels: int | None, budgets: list[int | None]) -> Iterator[tuple[Row, int | None]]:
    """The rows of so many labels; without any, nobody learns who does not ask."""
    if labels != 0:
        yield FREE, None
    if labels is None:
        yield OURS, None
    yield from ((POOLED, budget) for budget in budgets)


def _all_labels(targets: list[str]) -> float:
    """How many a class there are where one style is held out."""
    styles = [file.parts[-3:-1] for file in icons().glob("*/*/*.png")]
    held = [[name for style, name in styles if style != target] for target in targets]
    return round(fmean(len(sources) / len(set(sources)) for sources in held), 1)


if __name__ == "__main__":
    main()
