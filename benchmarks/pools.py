"""How to learn from images without labels: their share of a batch, how many, and what beside them.

    python -m benchmarks.pools

Rows differ in one thing from what `client distill --unlabelled` does. Each style of the bundled icons is held
out in turn; the images without labels are the bundled pool, as of `benchmarks.unlabelled`. Runs are those of
benchmarks/runs.csv.
"""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from statistics import fmean

from benchmarks.accuracy import cells, in_domain, measured, measured_rows, parser_of_runs
from benchmarks.plots import Place, spent_and_gained
from benchmarks.unlabelled import config_of, name_of, pool
from client.learning.recipe import Recipe, Variant
from client.results.comparison_table import RunResult, Spread
from client.runs.comparison import ComparisonConfig


@dataclass(frozen=True)
class Choice:
    """One way to learn from a pool.

    Attributes:
        changed: what it changes in the recipe.
        share: how much of the pool is bought.
        pooled: whether there is a pool at all.
        method: by which a student learns.
    """

    changed: Callable[[Recipe], Recipe] = lambda recipe: recipe
    share: float = 1.0
    pooled: bool = True
    method: str = "vl2v-adip"


def _share(of_a_batch: float, *, pseudo_labels: float = 0.0) -> Callable[[Recipe], Recipe]:
    return lambda recipe: replace(recipe, unlabelled_share=of_a_batch, pseudo_labels=pseudo_labels)


CHOICES = {
    "fine-tuned": Choice(pooled=False, method="erm"),
    "class texts alone": Choice(pooled=False, method="text-only"),
    "no pool": Choice(pooled=False),
    "a third of a batch, no pseudo-labels": Choice(_share(1 / 3)),
    "a fifth of a batch, no pseudo-labels": Choice(_share(1 / 5)),
    "half of a batch, no pseudo-labels": Choice(_share(1 / 2)),
    "the default: a third, pseudo-labels": Choice(),
    "the default, and SWAD's mean of the weights": Choice(lambda recipe: replace(recipe, selection="swad")),
    "half of a batch, pseudo-labels": Choice(_share(1 / 2, pseudo_labels=Recipe().pseudo_labels)),
    "a quarter of the pool": Choice(share=0.25),
    "half of the pool": Choice(share=0.5),
}
# What a growing budget buys, one after the other.
_BY_BUDGET = (
    "fine-tuned",
    "class texts alone",
    "no pool",
    "half of the pool",
    "the default: a third, pseudo-labels",
)


def main() -> None:
    """Run what has not been run, then print the table."""
    parser = parser_of_runs(__doc__)
    parser.add_argument("--targets", nargs="+", default=["emoji", "pixel", "colour"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=CHOICES, default=list(CHOICES), metavar="ROW")
    parser.add_argument("--plot", type=Path, help="draw what a growing budget buys as an SVG")
    arguments = parser.parse_args()
    recipe = Recipe().with_steps(arguments.steps)
    found = {}

    def results(name: str) -> list[RunResult]:
        configs = [_config(arguments, name, recipe, target) for target in arguments.targets]
        return [each.result for config in configs for each in measured([config], _name_of(config))]

    print(f"| | queries | {' | '.join(arguments.targets)} | mean | in-domain |")
    print("|---" * (4 + len(arguments.targets)) + "|")
    for name, of_row in measured_rows(arguments.rows, results):
        found[name] = of_row
        print(f"| {name} | {_cells(found[name])} |", flush=True)
    if arguments.plot:
        arguments.plot.write_text(_plot(found) + "\n", encoding="utf-8")


def _config(arguments: argparse.Namespace, name: str, recipe: Recipe, target: str) -> ComparisonConfig:
    """One row of one style."""
    choice = CHOICES[name]
    folders = pool(target) if choice.pooled else ()
    row = Variant(name, choice.method, choice.changed(recipe))
    config = config_of(arguments, target, arguments.seeds, row, folders)
    return config if choice.share == 1.0 else replace(config, queries=_reach(config, choice.share))


def _name_of(config: ComparisonConfig) -> str:
    """The folder of its runs: rows with the pool have one of their own, for a comparison has one pool."""
    (target,), (row,) = config.targets, config.variants
    size = f"{config.image_size}px-{row.recipe.steps}"
    return f"pools-{target}-{config.student}-{size}-{len(config.unlabelled)}"


def _reach(config: ComparisonConfig, share: float) -> int:
    """How many queries buy all texts and labelled images, and this share of the pool."""
    labelled, everything = (
        round(fmean(each.result.queries for each in measured([each_config], name_of(each_config))))
        for each_config in (replace(config, unlabelled=()), config)
    )
    return round(labelled + share * (everything - labelled))


def _cells(results: Sequence[RunResult]) -> str:
    """Queries, and the accuracy of each style, their mean and in-domain."""
    return f"{fmean(r.queries for r in results):.0f} | {cells(_by_style(results))}"


def _plot(found: Mapping[str, Sequence[RunResult]]) -> str:
    """Accuracy by queries, which stand across by their square root."""
    rows = [found[name] for name in _BY_BUDGET if name in found]
    queries = [fmean(each.queries for each in row) for row in rows]
    places = [Place(math.sqrt(each), f"{each:,.0f}", joined=each > 0) for each in queries]
    lines = {
        "in-domain": [_of(row, fmean, in_domain) for row in rows],
        "unseen styles": [_of(row, fmean) for row in rows],
        "the worst": [_of(row, min) for row in rows],
    }
    return spent_and_gained(places, lines, "Accuracy by the queries that a student was given", "queries")


def _of(
    results: Sequence[RunResult],
    taken: Callable[[Sequence[float]], float],
    share: Callable[[RunResult], float] = lambda result: result.out_of_domain,
) -> Spread:
    """What is `taken` of the styles with each seed, over seeds."""
    seeds = zip(*_by_style(results), strict=True)
    return Spread.of([taken([share(each) for each in styles]) for styles in seeds])


def _by_style(results: Sequence[RunResult]) -> list[list[RunResult]]:
    return [list(group) for _, group in groupby(results, key=lambda r: r.target)]


if __name__ == "__main__":
    main()
