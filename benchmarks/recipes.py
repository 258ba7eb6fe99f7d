"""Other recipes beside the default, on the domains that it was chosen with, over a real vendor.

    make bench-recipes

Prints a table as benchmarks/notebook.md has it. What is on record (records.py) is not run again.
"""

from dataclasses import replace

from benchmarks.accuracy import STEPS, compared, icons, name_of, parser_of_runs
from client.learning.recipe import PAPER, Recipe, Variant
from client.runs.comparison import ComparisonConfig


def recipes(steps: int) -> dict[str, Recipe]:
    """The default recipe with so many steps, and what differs from it in one thing; and the paper's."""
    default = Recipe().with_steps(steps)
    return {
        "default": default,
        "smaller-batches": replace(default, images_per_domain=4, steps=2 * steps),
        "larger-batches": replace(default, images_per_domain=16, steps=steps // 2),
        "twice-as-long": replace(default, steps=2 * steps),
        "no-styles": replace(default, augmentation=replace(default.augmentation, style=0.0)),
        "more-styles": replace(default, augmentation=replace(default.augmentation, style=0.4)),
        "double-rate": replace(default, learning_rate=2 * default.learning_rate),
        "half-rate": replace(default, learning_rate=default.learning_rate / 2),
        "quarter-rate": replace(default, learning_rate=default.learning_rate / 4),
        "all-layers": replace(default, frozen=0.0),
        "all-layers-double-rate": replace(default, frozen=0.0, learning_rate=2 * default.learning_rate),
        "one-frozen": replace(default, frozen=0.125),
        "two-frozen": replace(default, frozen=0.25),
        "all-layers-half-rate": replace(default, frozen=0.0, learning_rate=default.learning_rate / 2),
        "all-layers-quarter-rate": replace(default, frozen=0.0, learning_rate=default.learning_rate / 4),
        "swad": replace(default, selection="swad"),
        "paper": PAPER,
    }


def main() -> None:
    """Run what has not been run, then print the table."""
    parser = parser_of_runs(__doc__)
    parser.add_argument("--targets", nargs="+", default=["line", "colour"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", default=["erm", "vl2v-adip"])
    parser.add_argument("--recipes", nargs="+", choices=recipes(STEPS), default=[*recipes(STEPS)])
    arguments = parser.parse_args()
    known = recipes(arguments.steps)

    config = ComparisonConfig(
        data=icons(),
        variants=[
            Variant(f"{method}-{name}", method, known[name])
            for name in arguments.recipes
            for method in arguments.methods
        ],
        targets=arguments.targets,
        seeds=arguments.seeds,
        student=arguments.student,
        image_size=arguments.image_size,
    )
    print(compared(config, name_of("recipes", arguments)))


if __name__ == "__main__":
    main()
