"""The plane of labels and queries: the best method that asks nothing, and ours, cell by cell.

    python -m benchmarks.plane                                  # the row of all labels, which is on record
    python -m benchmarks.plane --labels 1 4 16 --budgets 54 250 1000 5000 all

With all labels, cells are lines of benchmarks/runs.csv. With fewer they are `client compare --labels
--budgets` on the bundled icons with their pool, a style at a time; what has been run in benchmarks/.runs is
not run again. The plane is client/results/plane.json, which `client plan` reads.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean

from benchmarks.accuracy import Row
from benchmarks.records import ROOT
from benchmarks.runs import (
    STYLES,
    comparison_of,
    config_of,
    customer,
    icons,
    measured,
    parser_of_runs,
    pool,
)
from client.results.plane import Plane, PlaneCell
from client.results.run_result import RunResult

FILE = ROOT / "client" / "results" / "plane.json"
# The best method that asks nothing, ours, and ours with the pool.
ROWS = [Row("label-only"), Row("vl2v-adip"), Row("vl2v-adip@pool")]

Labelled = tuple[float, RunResult]


def main() -> None:
    """Run what is missing, write the plane, and print it."""
    parser = parser_of_runs(__doc__, targets=STYLES, seeds=(0, 1, 2))
    parser.set_defaults(image_size=128, steps=1200)
    parser.add_argument("--labels", type=int, nargs="+", default=[], help="a class, beside all")
    parser.add_argument("--budgets", type=_number, nargs="+", default=[54, 250, 1000, 5000, None])
    arguments = parser.parse_args()
    plane = plane_of(arguments, [*_with_all(arguments), *_with_fewer(arguments)])
    FILE.write_text(plane.model_dump_json(indent=1) + "\n", encoding="utf-8")
    for labels in sorted({cell.labels for cell in plane.cells}):
        row = sorted((c.queries, c.accuracy) for c in plane.cells if c.labels == labels)
        print(f"{labels:.0f} labels a class:", "  ".join(f"{q:,.0f}: {share:.1f}" for q, share in row))


def _number(word: str) -> int | None:
    return None if word == "all" else int(word)


def _with_all(arguments: argparse.Namespace) -> Iterator[Labelled]:
    """The runs with all labels, from the record."""
    styles = [file.parts[-3:-1] for file in icons().glob("*/*/*.png")]
    for target in arguments.targets:
        sources = [name for style, name in styles if style != target]
        for seed in arguments.seeds:
            configs = [
                config_of(
                    arguments,
                    target,
                    seed,
                    row.variant(arguments.steps),
                    unlabelled=pool(target) if row.pool else (),
                )
                for row in ROWS
            ]
            yield from ((len(sources) / len(set(sources)), each.result) for each in measured(configs))


def _with_fewer(arguments: argparse.Namespace) -> Iterator[Labelled]:
    """The runs with fewer labels."""
    if not arguments.labels:
        return
    rows = [row.variant(arguments.steps) for row in ROWS[:2]]
    with customer() as connection:
        for target in arguments.targets:
            config = config_of(arguments, target, arguments.seeds[0], *rows, unlabelled=pool(target))
            config = replace(
                config, seeds=arguments.seeds, labels=arguments.labels, budgets=arguments.budgets
            )
            yield from ((each.labels or 0, each) for each in comparison_of(config, connection).execute())


def plane_of(arguments: argparse.Namespace, results: list[Labelled]) -> Plane:
    """The means over styles and seeds."""
    cells: dict[tuple[bool, float, str, int | None], list[Labelled]] = {}
    for labels, run in results:
        key = (run.labels is None, run.labels or 0, run.method, run.budget)
        cells.setdefault(key, []).append((labels, run))
    return Plane(
        image_size=arguments.image_size,
        steps=arguments.steps,
        styles=arguments.targets,
        seeds=len(arguments.seeds),
        cells=[
            PlaneCell(
                labels=round(fmean(labels for labels, _ in runs), 1),
                queries=round(fmean(run.queries for _, run in runs)),
                accuracy=round(100 * fmean(run.out_of_domain for _, run in runs), 1),
            )
            for runs in cells.values()
        ],
    )


if __name__ == "__main__":
    main()
