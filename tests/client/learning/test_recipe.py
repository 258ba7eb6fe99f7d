"""The paper's recipe, clause by clause, and what the schedule and the loop make of it."""

from dataclasses import asdict, replace

import pytest

from client.learning.methods import METHODS, parse_method
from client.learning.recipe import PAPER, RECIPES, Recipe
from client.learning.training import Schedule


def test_the_papers_recipe_has_every_published_value() -> None:
    """Of Addepalli et al., CVPR 2024, and of DomainBed with SWAD, which it trains by (docs/method.md)."""
    assert asdict(PAPER) == {
        "image_weight": 0.5,
        "weigh_teacher": False,  # the published code takes all that the teacher says
        "pseudo_labels": 0.0,
        "unlabelled_share": 1 / 3,  # of no consequence without unlabelled images, which the paper has not
        "holdout": 0.2,
        "augmentation": {"crop_scale": (0.7, 1.0), "jitter": 0.3, "grayscale": 0.1, "style": 0.0},
        "align_views": 6,  # ours: the published code takes a fresh view at every step
        "align_steps": 5000,
        "align_images_per_domain": 32,
        "align_learning_rate": 5e-5,
        "steps": 5000,
        "passes": 0,  # just so many steps
        "images_per_domain": 32,
        "domains_in_batch": 1,  # DomainBed takes so many of each domain, however few there are
        "learning_rate": 5e-5,
        "frozen": 0.0,
        "cosine": False,
        "warmup": 0.2,  # of no consequence while the rate is constant
        "evaluations": 25,
        "selection": "swad",
    }


@pytest.mark.parametrize(
    ("name", "steps", "every"), [("paper", 5000, 200), ("paper-domainnet", 15_000, 1000)]
)
def test_the_papers_rate_is_constant_and_its_hold_outs_are_scored_as_often(
    name: str, steps: int, every: int
) -> None:
    recipe = RECIPES[name]
    assert (recipe.steps, recipe.align_steps) == (steps, steps)
    schedule = Schedule(recipe.steps, recipe.learning_rate, recipe.evaluations, recipe.cosine, recipe.warmup)
    assert {schedule.rate(step) for step in range(1, steps + 1)} == {5e-5}
    scored = [step for step in range(1, steps + 1) if schedule.evaluates_after(step)]
    assert scored == list(range(every, steps + 1, every))


@pytest.mark.parametrize(
    ("domains", "per_domain", "aligned", "beside"),
    [(0, 32, 256, 32), (1, 32, 256, 16), (2, 16, 128, 16), (3, 8, 64, 12), (4, 8, 64, 16), (6, 8, 64, 24)],
)
def test_few_domains_give_more_images_each_to_a_batch(
    domains: int, per_domain: int, aligned: int, beside: int
) -> None:
    settled = Recipe().settled(domains=domains, labelled=20, unlabelled=10)
    assert (settled.images_per_domain, settled.align_images_per_domain) == (per_domain, aligned)
    assert settled.unlabelled_in_batch(per_domain, domains) == beside
    assert settled.steps == Recipe().steps
    assert settled.settled(domains=domains, unlabelled=10) == settled


def test_steps_are_added_until_images_are_seen_twice_unless_they_were_given() -> None:
    default = Recipe()
    assert default.settled(domains=4, unlabelled=9_600).steps == 1200
    assert default.settled(domains=4, unlabelled=9_601).steps == 1201
    assert default.settled(domains=1, unlabelled=45_000).steps == 5625  # of 16 unlabelled images
    assert default.settled(domains=4, labelled=19_200).steps == 1200
    assert default.settled(domains=4, labelled=19_201, unlabelled=9_700).steps == 1213
    assert default.settled(domains=5, labelled=410_000).steps == 20_500  # of 40 labelled images
    assert default.most_unlabelled(domains=4, labelled=1000, aligns=True) is None
    given = default.with_steps(600)
    assert given.settled(domains=4, unlabelled=45_000).steps == 600
    assert given.most_unlabelled(domains=4, labelled=1000, aligns=True) == 600 * 16
    most = {
        aligns: given.most_unlabelled(domains=4, labelled=6000, aligns=aligns) for aligns in (True, False)
    }
    assert most == {True: 2 * 6000, False: 600 * 16}  # the former are those that the projector is aligned on
    assert PAPER.settled(domains=1, unlabelled=10**6) == PAPER


def test_variants_change_the_selection() -> None:
    assert parse_method("erm+swad", Recipe()) == (METHODS["erm"], replace(Recipe(), selection="swad"))
    assert parse_method("erm+best", PAPER) == (METHODS["erm"], replace(PAPER, selection="best"))


def test_a_very_short_run_is_aligned_shortly_too() -> None:
    assert PAPER.with_steps(10) == replace(PAPER, steps=10, align_steps=40)
    assert PAPER.with_steps(None) is PAPER


def test_views_are_counted_as_the_released_code_would_ask_about_them() -> None:
    """Three source domains of PACS: 960,192 queries there, at 5,001 steps a stage; both stages fresh."""
    assert PAPER.views_seen(7995, 3) == 6 * 7995 + 96 * 5000
