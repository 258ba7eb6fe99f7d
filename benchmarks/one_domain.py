"""Students of labelled images that lie in one domain, by how many of them stand in a batch.

    python -m benchmarks.one_domain
    python -m benchmarks.one_domain --pool

Whoever knows of no domains puts all images in one. Here these are the bundled icons of four styles, laid
together; the fifth is the style that the student never saw. Runs are those of benchmarks/runs.csv.
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from benchmarks.accuracy import cells, icons, made_once, measured, measured_rows, parser_of_runs
from benchmarks.records import TOGETHER
from benchmarks.unlabelled import config_of, pool
from client.learning.recipe import Recipe, Variant
from client.results.comparison_table import RunResult

_ALIGNED = Recipe().align_images_per_domain // Recipe().images_per_domain


def main() -> None:
    """Run what has not been run, then print the table."""
    parser = parser_of_runs(__doc__)
    parser.add_argument("--targets", nargs="+", default=["emoji", "pixel"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=["erm", "vl2v-adip"], metavar="METHOD")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32], help="labelled images in a batch")
    parser.add_argument("--pool", action="store_true", help="learn from the bundled pool as well")
    arguments = parser.parse_args()
    recipe = Recipe().with_steps(arguments.steps)
    print(f"| | labelled images a step | {' | '.join(arguments.targets)} | mean | in-domain | seconds |")
    print("|---" * (5 + len(arguments.targets)) + "|")
    rows = [(method, batch) for method in arguments.methods for batch in arguments.batches]

    def results(row: tuple[str, int]) -> list[list[RunResult]]:
        method, batch = row
        changed = replace(
            recipe,
            images_per_domain=batch,
            align_images_per_domain=_ALIGNED * batch,
            domains_in_batch=1,
        )
        variant = Variant(f"{method}-{batch}", method, changed)
        return [_results(arguments, variant, target) for target in arguments.targets]

    for (method, batch), by_target in measured_rows(rows, results):
        seconds = fmean(each.seconds for results in by_target for each in results)
        print(f"| {method} | {batch} | {cells(by_target)} | {seconds:.0f} |", flush=True)


def _results(arguments: argparse.Namespace, row: Variant, target: str) -> list[RunResult]:
    folders = pool(target) if arguments.pool else ()
    config = config_of(arguments, target, arguments.seeds, row, folders)
    config = replace(config, data=_together(target))
    size = f"{config.image_size}px-{row.recipe.steps}"
    name = f"one-domain-{target}-{config.student}-{size}-{len(folders)}"
    return [each.result for each in measured([config], name)]


def _together(target: str) -> Path:
    """The bundled icons of all styles but one in one folder, and this one beside it."""

    def lay_together(folder: Path) -> None:
        for file in icons().glob("*/*/*"):
            style, label = file.parts[-3:-1]
            alone = style == target
            place = folder / (target if alone else TOGETHER) / label
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place / (file.name if alone else f"{style}-{file.name}"))

    return made_once(f"{icons().parent.name}-of-one-domain-but-{target}", lay_together)


if __name__ == "__main__":
    main()
