"""Students that learn from images without labels as well, beside those that do not.

    python -m benchmarks.unlabelled

Each style of the bundled icons is held out in turn. The images without labels are the bundled pool, without
the folders that must stay out where that style is held out (examples/unlabelled.toml). Runs are those of
benchmarks/runs.csv, as of `benchmarks.accuracy`.
"""

import argparse
import tomllib
from collections.abc import Sequence
from statistics import fmean

from benchmarks.accuracy import icons, in_domain, measured, measured_rows, parser_of_runs, unpacked
from benchmarks.records import ROOT, Record
from client.data.bundled_set import UNLABELLED
from client.learning.recipe import Recipe, Variant
from client.results.comparison_table import Spread
from client.runs.comparison import ComparisonConfig


def main() -> None:
    """Run what has not been run, then print the table."""
    parser = parser_of_runs(__doc__)
    parser.add_argument("--targets", nargs="+", default=["colour", "emoji", "line", "pixel", "solid"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=["vl2v-adip"], metavar="METHOD")
    arguments = parser.parse_args()
    recipe = Recipe().with_steps(arguments.steps)
    print("| held out | method | labelled images alone | in-domain | with the pool | in-domain | queries |")
    print("|---" * 7 + "|")
    rows = [(target, method) for target in arguments.targets for method in arguments.methods]

    def both(row: tuple[str, str]) -> list[list[Record]]:
        target, method = row
        configs = (
            config_of(arguments, target, arguments.seeds, Variant(method, method, recipe), unlabelled)
            for unlabelled in ((), pool(target))
        )
        return [measured([config], name_of(config)) for config in configs]

    for (target, method), (alone, pooled) in measured_rows(rows, both):
        queries = round(fmean(each.result.queries for each in pooled))
        print(f"| {target} | {method} | {_cells(alone)} | {_cells(pooled)} | {queries} |", flush=True)


def config_of(
    arguments: argparse.Namespace,
    target: str,
    seeds: Sequence[int],
    row: Variant,
    unlabelled: tuple[str, ...],
) -> ComparisonConfig:
    """One row of one style, over some seeds; the student and its size are among the arguments."""
    return ComparisonConfig(
        data=icons(),
        variants=[row],
        targets=[target],
        seeds=seeds,
        student=arguments.student,
        image_size=arguments.image_size,
        unlabelled=unlabelled,
    )


def name_of(config: ComparisonConfig) -> str:
    """The folder of its runs, below benchmarks/.runs."""
    (target,), (row,) = config.targets, config.variants
    size = f"{config.image_size}px-{row.recipe.steps}"
    return f"unlabelled-{target}-{config.student}-{size}-{len(config.unlabelled)}"


def pool(target: str) -> tuple[str, ...]:
    """The folders of the bundled pool that may be learnt from where a style is held out."""
    folder = unpacked(UNLABELLED)
    excluded = tomllib.loads((ROOT / "examples" / "unlabelled.toml").read_text())["exclude"][target]
    return tuple(
        str(each) for each in sorted(folder.iterdir()) if each.is_dir() and each.name not in excluded
    )


def _cells(records: Sequence[Record]) -> str:
    """Accuracy out of domain and in it, mean and deviation over seeds."""
    results = [each.result for each in records]
    numbers = ([r.out_of_domain for r in results], [in_domain(r) for r in results])
    return " | ".join(Spread.of(each).show() for each in numbers)


if __name__ == "__main__":
    main()
