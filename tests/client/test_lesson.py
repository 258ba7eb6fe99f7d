"""What further views are taught, where a recipe does not leave them their own embeddings."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from client.display import Display
from client.learning.methods import Knowledge
from client.learning.recipe import Recipe
from client.lesson import _share_views
from client.run_folder import RunConfig
from client.sources import Sources, read_sources
from tests.client.toy import make_folder


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    data = make_folder(tmp_path / "toy", images=3)
    config = RunConfig(
        str(data), "red", "vl2v-adip", "efficientnet_lite0", 32, 0, "stratified", Recipe(), views=2
    )
    return read_sources(config, Display())


@pytest.fixture
def known(sources: Sources) -> Knowledge:
    """Everything bought but the last view of the second image, and of the third anything but itself."""
    count = len(sources.examples)
    bought = torch.ones(count, dtype=torch.bool)
    bought[sources.holdout] = False
    bought[[sources.views[1][1], *sources.views[2]]] = False
    images = torch.arange(2.0 * count).reshape(count, 2)
    return Knowledge(torch.tensor(sources.labels), torch.empty(0, 2), images, bought, 0.5)


def _copy(known: Knowledge) -> Knowledge:
    return replace(known, images=known.images.clone(), bought=known.bought.clone())


def test_views_keep_their_own_embeddings(known: Knowledge, sources: Sources) -> None:
    before = _copy(known)
    _share_views(known, sources, "own")
    assert torch.equal(known.images, before.images)
    assert torch.equal(known.bought, before.bought)


def test_an_image_is_taught_the_mean_of_what_was_bought_of_it(known: Knowledge, sources: Sources) -> None:
    before = _copy(known)
    _share_views(known, sources, "mean")
    first, second, third = sources.train[:3]
    assert torch.equal(known.images[first], before.images[[first, *sources.views[0]]].mean(0))
    assert torch.equal(known.images[second], before.images[[second, sources.views[1][0]]].mean(0))
    assert torch.equal(known.images[third], before.images[third])
    assert known.bought[sources.train].all()
    assert not known.bought[[view for views in sources.views for view in views]].any()


def test_both_lies_half_way_to_the_mean(known: Knowledge, sources: Sources) -> None:
    before = _copy(known)
    _share_views(known, sources, "both")
    rows = [sources.train[0], *sources.views[0]]
    assert torch.equal(known.images[rows], (before.images[rows] + before.images[rows].mean(0)) / 2)
    assert torch.equal(known.images[sources.train[2]], before.images[sources.train[2]])
    assert torch.equal(known.bought, before.bought)
