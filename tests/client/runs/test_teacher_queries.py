"""What a run asks, and never more than it may use."""

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from client.data.images import decode_square
from client.data.listing import list_folder
from client.errors import UsageError
from client.learning.recipe import Recipe
from client.progress import Display
from client.runs.config import RunConfig
from client.runs.dataset import read_dataset
from client.runs.embedding import collect_inputs
from client.runs.plans import describe_plan
from client.runs.teacher_queries import query_of, teacher_queries
from tests.client.toy import CLASSES, make_folder, run_config, table_of


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    data = make_folder(tmp_path / "toy", images=3)
    return run_config(data, method="vl2v-adip", student="tf_efficientnet_lite0")


@pytest.mark.parametrize("recipe", [Recipe(images_per_domain=1, steps=1), Recipe().with_steps(1)])
def test_a_domain_that_a_table_holds_out_whole_changes_neither_steps_nor_purchase(
    tmp_path: Path, recipe: Recipe
) -> None:
    """No batch has an image of it: only what is measured differs from a run without it."""
    root, pool = make_folder(tmp_path / "toy", images=5), tmp_path / "pool"
    pool.mkdir()
    for number in range(20):
        Image.effect_noise((40, 40), 40 + number).save(pool / f"{number}.png")
    config = run_config(
        "",
        target_domain=None,
        method="no-align",
        student="test_efficientnet",
        recipe=recipe,
        unlabelled=(str(pool),),
    )
    found = []
    for domains in (("dark", "red"), ("dark", "light", "red")):
        table = table_of(root, tmp_path / "table.csv", *domains, held_out="light")
        dataset = read_dataset(config.changed(data=str(table)), Display())
        assert dataset.taught_domains == ("dark", "red")
        assert {dataset.examples[i].domain for i in dataset.holdout} == set(domains)
        found.append((teacher_queries(config, dataset).all, describe_plan(config, dataset, None, None)))
    (queries, plan), (queries_with_it, plan_with_it) = found
    assert queries_with_it == queries
    assert plan_with_it.unseen_images == plan.unseen_images
    assert plan_with_it.steps == plan.steps
    assert plan.steps == 12 or plan.unseen_images == 4  # of 24 labelled and 20 other images


@pytest.mark.parametrize(
    ("method", "asked"),
    [("vl2v-adip", 6), ("simkd+swad", 6), ("kd", 2), ("no-align+swad", 2), ("vl2v-sd-bought", 2)],
)
def test_more_unlabelled_images_than_the_steps_see_are_asked_about_only_to_align(
    config: RunConfig, tmp_path: Path, method: str, asked: int
) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    for number in range(6):
        Image.effect_noise((40, 40), 40 + number).save(pool / f"{number}.png")
    recipe = Recipe(images_per_domain=1, domains_in_batch=1).with_steps(2)
    config = config.changed(method=method, recipe=recipe, unlabelled=(str(pool),))
    dataset = read_dataset(config, Display())
    assert len(teacher_queries(config, dataset).of("unlabelled").queries) == asked
    assert describe_plan(config, dataset, None, None).unseen_images == 6 - asked


@pytest.mark.parametrize("data", ["names.txt", "table.csv"])
def test_images_without_labels_alone_are_drawn_whatever_images_are_chosen_by(
    config: RunConfig, tmp_path: Path, data: str
) -> None:
    """No labelled image trains: there are class names alone, or a table that holds all images out."""
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    table_of(tmp_path / "toy", tmp_path / "table.csv", "dark", held_out="dark")
    pool = tmp_path / "pool"
    pool.mkdir()
    for number in range(6):
        Image.effect_noise((40, 40), 40 + number).save(pool / f"{number}.png")
    config = config.changed(data=str(tmp_path / data), target_domain=None, unlabelled=(str(pool),))
    dataset = read_dataset(config, Display())
    assert not dataset.train
    assert len(teacher_queries(config, dataset).of("unlabelled").queries) == 6


def test_whoever_asks_about_a_file_asks_about_the_same_bytes(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=1)
    glyph = root / "dark" / "circle" / "glyph.png"
    Image.new("RGBA", (9, 5), (0, 0, 0, 0)).save(glyph)
    photo = root / "dark" / "square" / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((600, 500), 90).save(photo, exif=exif)
    examples, _ = list_folder(root).read(["dark"])
    asked = {query.name: query for query in map(query_of, examples)}
    embedded = collect_inputs([], [str(root / "dark")], Display()).queries
    assert {query.name: query for query in embedded} == asked
    for example in examples:
        sent = asked[str(example.path)].content()  # which checks the digest
        assert (sent != example.path.read_bytes()) == (example.path in (glyph, photo))
        assert {query.content() for query in embedded if query == asked[str(example.path)]} == {sent}
        assert example.drawing == hashlib.sha256(example.path.read_bytes()).hexdigest()
        assert (example.square(16)[0] == decode_square(example.path.read_bytes(), 16)[0]).all()


@pytest.mark.parametrize("rounds", [0, 0.5, 1, 9])
def test_no_more_is_asked_than_may_be_used(config: RunConfig, rounds: float) -> None:
    dataset = read_dataset(config, Display())
    images = len(dataset.train)
    limit = len(CLASSES) + int(rounds * images)
    asked = teacher_queries(config.changed(use_at_most=limit), dataset)
    everything = teacher_queries(config, dataset)
    assert len(set(asked.all)) == min(limit, len(set(everything.all)))
    assert asked.all == everything.all[: len(asked.all)]
    labelled = asked.of("labelled")
    assert [query.digest for query in labelled.queries] == [
        dataset.examples[i].digest for i in labelled.positions
    ]


def test_a_method_may_ask_about_no_image(config: RunConfig) -> None:
    dataset = read_dataset(config.changed(method="text-only"), Display())
    asked = teacher_queries(config.changed(method="text-only"), dataset)
    assert [query.kind for query in asked.all] == ["text"] * len(CLASSES)


def test_the_sentences_of_rise_are_queries_like_others(config: RunConfig) -> None:
    config = config.changed(method="rise", recipe=Recipe())
    dataset = read_dataset(config, Display())
    asked = teacher_queries(config, dataset)
    texts = len(CLASSES) * (7 + len(dataset.domains))
    assert len(asked.prompts) == texts
    assert "a dark of a tall bar" in {query.name for query in asked.prompts}
    assert not any("red" in query.name for query in asked.prompts)
    few = teacher_queries(config.changed(use_at_most=texts + 2), dataset)
    assert few.all == [*asked.prompts, *asked.of("labelled").queries[:2]]
    with pytest.raises(
        UsageError, match=rf"{texts - 1} queries a run do not reach the {texts} class prompts"
    ):
        teacher_queries(config.changed(use_at_most=texts - 1), dataset)
