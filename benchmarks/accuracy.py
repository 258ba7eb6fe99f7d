"""Rows beside each other on the bundled icons: leave one style out, several seeds, over a real vendor.

    make bench-accuracy
    python -m benchmarks.accuracy --rows erm vl2v-adip vl2v-adip@pool vl2v-adip:no-styles

A row is METHOD or METHOD:RECIPE, and either with @pool or @half-pool learns from the bundled images without
labels as well. The tables of docs/results.md and of benchmarks/notebook.md are made of them. Runs are those
of benchmarks/runs.csv; what is missing there is run (runs.py).
"""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from benchmarks.plots import plot
from benchmarks.records import TOGETHER
from benchmarks.rivals import enrolled
from benchmarks.runs import STYLES, config_of, icons, made_once, measured, parser_of_runs, pool
from client.learning.recipe import PAPER, Recipe, Variant
from client.options.vendor import VendorOptions
from client.progress import Display
from client.results.comparison_table import as_markdown
from client.runs.comparison import ComparisonConfig, ComparisonRunner
from client.runs.connection import Connection

RIVALS = ("zero-shot", "linear-probe", "erm", "erm+swad", "lp-ft", "kd", "simkd", "rise")
OURS = ("label-only", "text-only", "image-only", "no-align", "vl2v-adip", "vl2v-adip+swad", "unlimited")
POOLS = {"": 0.0, "half-pool": 0.5, "pool": 1.0}


def recipes(steps: int) -> dict[str, Recipe]:
    """The default recipe with so many steps, and what differs from it in one thing; and the paper's."""
    default = Recipe().with_steps(steps)
    rate = default.learning_rate
    return {
        "": default,
        "smaller-batches": replace(default, images_per_domain=4, steps=2 * steps),
        "larger-batches": replace(default, images_per_domain=16, steps=steps // 2),
        "twice-as-long": replace(default, steps=2 * steps),
        "no-styles": replace(default, augmentation=replace(default.augmentation, style=0.0)),
        "more-styles": replace(default, augmentation=replace(default.augmentation, style=0.4)),
        "double-rate": replace(default, learning_rate=2 * rate),
        "half-rate": replace(default, learning_rate=rate / 2),
        "quarter-rate": replace(default, learning_rate=rate / 4),
        "all-layers": replace(default, frozen=0.0),
        "two-frozen": replace(default, frozen=0.25),
        "fifth-plain": replace(default, unlabelled_share=1 / 5, pseudo_labels=0.0),
        "third-plain": replace(default, unlabelled_share=1 / 3, pseudo_labels=0.0),
        "half-plain": replace(default, unlabelled_share=1 / 2, pseudo_labels=0.0),
        "batch-of-8": _with_batches_of(default, 8),
        "batch-of-32": _with_batches_of(default, 32),
        "paper": PAPER,
    }


def _with_batches_of(recipe: Recipe, images: int) -> Recipe:
    """Of one domain."""
    aligned = images * recipe.align_images_per_domain // recipe.images_per_domain
    return replace(recipe, images_per_domain=images, align_images_per_domain=aligned, domains_in_batch=1)


@dataclass(frozen=True)
class Row:
    """A row by its words: a method, a recipe of `recipes`, and how much of the pool (`POOLS`)."""

    words: str

    def variant(self, steps: int) -> Variant:
        """The method and its recipe."""
        method, _, recipe = self.words.partition("@")[0].partition(":")
        return Variant(self.words, method, recipes(steps)[recipe])

    @property
    def pool(self) -> float:
        """The share of the pool that is bought."""
        return POOLS[self.words.partition("@")[2]]


def main() -> None:
    """Run what has not been run, then print the table."""
    enrolled()
    parser = parser_of_runs(__doc__, targets=STYLES, seeds=(0, 1, 2), on_record=True)
    parser.add_argument("--rows", nargs="+", default=[*RIVALS, *OURS], metavar="ROW")
    parser.add_argument("--together", action="store_true", help="all styles but one as one domain")
    parser.add_argument("--plot", type=Path, help="draw the rows by their queries as an SVG")
    arguments = parser.parse_args()
    rows = [Row(words) for words in arguments.rows]
    configs = [
        config
        for target in arguments.targets
        for seed in arguments.seeds
        for config in _configs(arguments, rows, target, seed)
    ]
    records = sorted(measured(configs), key=lambda each: arguments.rows.index(each.result.method))
    results = [each.result for each in records]
    nobody = Connection(VendorOptions(vendor="http://vendor"), Display())
    setting = ComparisonRunner(configs[0], Path("none"), nobody, device="cpu").setting
    teacher = next((each.teacher for each in reversed(records) if each.teacher), None)
    print(as_markdown(results, replace(setting, teacher=teacher, queries=None, planned=len(results))))
    if arguments.plot:
        arguments.plot.write_text(plot(results) + "\n", encoding="utf-8")


def _configs(
    arguments: argparse.Namespace, rows: Sequence[Row], target: str, seed: int
) -> list[ComparisonConfig]:
    """What is run of a style and a seed: a comparison for each share of the pool."""
    data = _together(target) if arguments.together else icons()
    configs = []
    for share in dict.fromkeys(row.pool for row in rows):
        variants = [row.variant(arguments.steps) for row in rows if row.pool == share]
        folders = pool(target) if share else ()
        config = config_of(arguments, target, seed, *variants, data=data, unlabelled=folders)
        if 0 < share < 1:
            config = replace(config, run=config.run.changed(use_at_most=_reach(arguments, target, share)))
        configs.append(config)
    return configs


def _reach(arguments: argparse.Namespace, target: str, share: float) -> int:
    """How many queries buy all texts and labelled images, and this share of the pool."""
    labelled, everything = (
        round(fmean(each.result.queries for each in measured(configs)))
        for configs in (
            [config_of(arguments, target, seed, unlabelled=folders) for seed in arguments.seeds]
            for folders in ((), pool(target))
        )
    )
    return round(labelled + share * (everything - labelled))


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
