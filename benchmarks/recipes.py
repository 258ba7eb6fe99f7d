"""Other recipes beside the default, on the domains that it was chosen with, over a real vendor.

    make bench-recipes

Prints a table as docs/method.md has it. What is on record (records.py) is not run again.
"""

import argparse
from dataclasses import replace

from benchmarks.accuracy import compared, icons
from client.comparison import ComparisonConfig, Variant
from client.learning.recipe import PAPER, Recipe

DEFAULT = Recipe()
RECIPES = {
    "default": DEFAULT,
    "8x400": replace(DEFAULT, steps=400),
    "8x600": replace(DEFAULT, steps=600),
    "4x2400": replace(DEFAULT, images_per_domain=4, steps=2400),
    "16x600": replace(DEFAULT, images_per_domain=16, steps=600),
    "16x1200": replace(DEFAULT, images_per_domain=16, steps=1200),
    "8x2400": replace(DEFAULT, steps=2400),
    "no-styles": replace(DEFAULT, augmentation=replace(DEFAULT.augmentation, style=0.0)),
    "more-styles": replace(DEFAULT, augmentation=replace(DEFAULT.augmentation, style=0.4)),
    "double-rate": replace(DEFAULT, learning_rate=2 * DEFAULT.learning_rate),
    "half-rate": replace(DEFAULT, learning_rate=DEFAULT.learning_rate / 2),
    "all-layers": replace(DEFAULT, frozen=0.0),
    "swad": replace(DEFAULT, selection="swad"),
    "wise": replace(DEFAULT, interpolation=0.5),
    "paper": PAPER,
}


def main() -> None:
    """Run what has not been run, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", nargs="+", default=["line", "colour"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", default=["erm", "vl2v-adip"])
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES), metavar="RECIPE")
    arguments = parser.parse_args()

    config = ComparisonConfig(
        data=icons(),
        variants=[
            Variant(f"{method}-{name}", method, RECIPES[name])
            for name in arguments.recipes
            for method in arguments.methods
        ],
        targets=arguments.targets,
        seeds=arguments.seeds,
        student="efficientnet_lite0",
        image_size=arguments.image_size,
    )
    print(compared(config, f"recipes-{arguments.image_size}px"))


if __name__ == "__main__":
    main()
