"""What a run reads before it buys: what it says of the images, and what it refuses."""

import os
import re
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from client.data.finder import counted
from client.data.kept_images import KeptImages
from client.errors import DataError
from client.learning.recipe import PAPER, RECIPES, Recipe
from client.progress import Display
from client.runs.config import RunConfig
from client.runs.dataset import Dataset, adapts, read_dataset
from client.runs.folder import RunFolder
from client.runs.mentions import mention_skipped
from client.runs.plans import describe_plan
from tests.client.toy import make_folder, run_config


def _config(root: Path, *, group_by_name: bool = False, seed: int = 0) -> RunConfig:
    student, recipe = "tf_efficientnet_lite0", Recipe()
    config = run_config(root, method="vl2v-adip", student=student, seed=seed, recipe=recipe)
    return config.changed(group_by_name=group_by_name)


def _read(root: Path, *, group_by_name: bool = False, seed: int = 0) -> tuple[Dataset, str]:
    """The data set of a run over this folder, and the notes on them."""
    said = StringIO()
    config = _config(root, group_by_name=group_by_name, seed=seed)
    dataset = read_dataset(config, Display(Console(file=said)))
    return dataset, " ".join(said.getvalue().split())


@pytest.mark.parametrize("asked", [True, False])
def test_a_class_is_never_held_out_whole(tmp_path: Path, asked: bool) -> None:
    """Three variants of one drawing go together where that is asked for, and then they train."""
    root = make_folder(tmp_path / "toy", images=10)
    shutil.rmtree(root / "light" / "circle")
    (root / "light" / "circle").mkdir()
    for file in (root / "dark" / "circle").iterdir():
        number = int(file.stem)
        if number < 3:
            file.rename(file.with_stem(f"photo__hen-{number:02}"))
        else:
            file.unlink()
    for seed in range(5):
        dataset, notes = _read(root, group_by_name=asked, seed=seed)
        circle = dataset.classes.index("circle")
        taught = sum(dataset.labels[position] == circle for position in dataset.train)
        assert taught == (3 if asked else 3 - sum(dataset.labels[i] == circle for i in dataset.holdout))
        assert taught > 0
        assert ("No image of circle is held out" in notes) == (taught == 3)
        assert "There is no image of light/circle." in notes


def test_a_class_and_a_domain_of_one_image_train(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=5)
    for file in [*(root / "light").glob("*/*.png"), *(root / "dark" / "circle").glob("*.png")]:
        if file.name != "00.png" or (file.parts[-3:-1] not in {("light", "square"), ("dark", "circle")}):
            file.unlink()
    dataset, notes = _read(root)
    trained = {dataset.stratum(position) for position in dataset.train}
    assert {("light", "square"), ("dark", "circle")} <= trained
    assert "No image of circle is held out" in notes
    assert "No image of the domain light is held out: it is not measured." in notes


@pytest.mark.parametrize(
    ("stray", "said"), [("thumbs", r"can be read in two ways"), ("", r"has one class only \(circle\)")]
)
def test_one_class_is_nothing_to_tell_apart(tmp_path: Path, stray: str, said: str) -> None:
    """It may come of one folder too deep among ROOT/<class>/<image>."""
    root = make_folder(tmp_path / "toy", images=5) / "light"
    if stray:
        (root / "circle" / stray).mkdir()
        (root / "circle" / "00.png").rename(root / "circle" / stray / "00.png")
    else:
        shutil.rmtree(root / "square")
        shutil.rmtree(root / "tall_bar")
    config = _config(root).changed(target_domain=None)
    with pytest.raises(DataError, match=said):
        read_dataset(config, Display.of_nobody())
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["path,label", *(f"{file},one" for file in root.rglob("*.png"))]))
    with pytest.raises(DataError, match=r"has one class only \(one\).*`label` tells the class"):
        read_dataset(config.changed(data=str(table)), Display.of_nobody())


def test_two_classes_of_one_prompt_are_refused(tmp_path: Path) -> None:
    root, names, table = make_folder(tmp_path / "toy", images=1), tmp_path / "c.txt", tmp_path / "table.csv"
    names.write_text("hot_dog\ncat\nhot dog\n")
    rows = [f"{file},{('hot_dog', 'hot dog')[n % 2]}" for n, file in enumerate(root.rglob("*.png"))]
    table.write_text("\n".join(["path,label", *rows]))
    for data in (names, table):
        config = _config(data).changed(target_domain=None, unlabelled=(str(root),))
        with pytest.raises(
            DataError, match=r"classes 'hot dog' and 'hot_dog' are both asked for as 'a photo of a hot dog'"
        ):
            read_dataset(config, Display.of_nobody())


def test_a_picture_of_two_labels_is_told(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=5)
    assert "two labels" not in _read(root)[1]
    shutil.copy(root / "dark" / "circle" / "00.png", root / "light" / "square" / "copy.png")
    said = _read(root)[1]
    assert "1 picture has two labels or more" in said
    assert "dark/circle/00.png = light/square/copy.png. `client data check` lists all." in said


def test_names_beside_the_images_are_taken_and_those_without_are_told(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=5)
    (root / "names.csv").write_text("class,name\ncircle,ring\nsquare,box\n")
    dataset, said = _read(root)
    assert dataset.wording.words == {"circle": "ring", "square": "box"}
    assert "The file of names lacks 1 of 3 classes, which keep the names of their folders: tall_bar." in said
    plan = describe_plan(_config(root), dataset, None, None)
    assert (plan.wording.templates, plan.wording.words) == (["a photo of a {}"], dataset.wording.words)


def test_kept_images_are_those_of_the_domain_where_a_student_works(tmp_path: Path) -> None:
    """Whatever they are given as; a pool that has others as well is none of kept images."""
    root, kept, mixed = make_folder(tmp_path / "toy", images=5), tmp_path / "kept", tmp_path / "mixed"
    mixed.mkdir()
    for name in ("own", "0" * 64):
        Image.effect_noise((40, 40), 50).save(mixed / f"{name}.png")
    Image.effect_noise((40, 40), 50).save(tmp_path / "asked.png")
    assert KeptImages(kept, at_most=9).keep([(tmp_path / "asked.png").read_bytes()]) == ""
    (file,) = map(str, kept.iterdir())
    for unlabelled, adapt, adapted, noted in (
        ([str(mixed), str(kept)], [], True, [str(kept)]),
        ([file], [], True, [file]),
        ([str(mixed)], [], False, []),
        ([str(mixed)], [str(kept)], True, []),
    ):
        config, said = _config(root).changed(unlabelled=tuple(unlabelled), adapt=tuple(adapt)), StringIO()
        dataset = read_dataset(config, Display(Console(file=said, width=1000)))
        assert adapts(config, dataset) is adapted
        found = re.findall("(.+) has, by their names, images that a student was asked about", said.getvalue())
        assert found == noted


def test_a_domain_that_a_table_holds_out_whole_is_named(tmp_path: Path) -> None:
    root, table = make_folder(tmp_path / "toy", images=5), tmp_path / "table.csv"
    rows = [
        f"{file},{file.parts[-2]},{file.parts[-3]},{'holdout' * (file.parts[-3] == 'light')}"
        for file in sorted(root.glob("*/*/*.png"))
    ]
    table.write_text("\n".join(["path,label,domain,split", *rows]))
    said = "All images of the domain light are held out, as the table says: none is trained on."
    assert said in _read(table)[1]
    assert "held out, as the table says" not in _read(root)[1]


def test_copies_of_images_that_train_or_are_held_out_do_not_measure_the_target(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=5)
    before, _ = _read(root)
    red, _ = before.folder.read(["red"])
    assert before.without_copies(red) == (red, [])
    for positions in (before.train, before.holdout):
        shutil.copy(before.examples[positions[0]].path, root / "red" / "circle" / f"{len(positions)}.png")
    dataset, _ = _read(root)
    more, _ = dataset.folder.read(["red"])
    tested, left_out = dataset.without_copies(more)
    assert tested == red
    assert [file.path.stem for file in left_out] == [str(len(before.train)), str(len(before.holdout))]
    assert counted(left_out) == {"a copy of an image of another domain": 2}


def test_a_domain_without_an_image_is_refused_by_name(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=3)
    for domain in ("red", "dark"):  # the target, and one to train on
        for file in (root / domain).glob("*/*"):
            file.rename(file.with_suffix(".svg"))
        with pytest.raises(DataError, match=f"no image in the domain '{domain}'"):
            _read(root)
        for file in (root / domain).glob("*/*"):
            file.rename(file.with_suffix(".png"))
    assert _read(root)[0].train


def test_a_domain_without_a_readable_image_is_refused_with_the_reason(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=3)
    for file in (root / "light").glob("*/*"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"'light' to train on; the first: light/circle/00\.png: empty file"):
        _read(root)


def test_a_target_that_a_pool_is_compared_with_is_refused_if_no_image_of_it_is_readable(
    tmp_path: Path,
) -> None:
    """Without a pool it stays unopened until evaluation."""
    root, pool = make_folder(tmp_path / "toy", images=3), make_folder(tmp_path / "pool", images=1)
    for file in (root / "red").glob("*/*"):
        file.write_bytes(b"")
    assert _read(root)[0].train
    with pytest.raises(DataError, match=r"'red' to evaluate on; the first: red/circle/00\.png: empty file"):
        read_dataset(_config(root).changed(unlabelled=(str(pool),)), Display.of_nobody())


def test_a_table_that_holds_out_all_that_is_there_is_refused_unless_there_is_a_pool(tmp_path: Path) -> None:
    root, table = make_folder(tmp_path / "toy", images=3), tmp_path / "table.csv"
    pool = make_folder(tmp_path / "pool", images=4)
    lines = ["path,label,domain,split"]
    for file in sorted(root.glob("*/*/*.png")):
        domain, name = file.parts[-3:-1]
        lines.append(f"{file},{name},{domain},{'train' if file.name == '00.png' else 'val'}")
    table.write_text("\n".join(lines))
    assert _read(table)[0].train
    for file in root.glob("*/*/00.png"):
        file.unlink()
    with pytest.raises(
        DataError, match="all 12 readable images of the source domains are held out"
    ) as refused:
        _read(table)
    assert "--unlabelled" in str(refused.value)
    with_pool = _config(table).changed(unlabelled=(str(pool),))
    assert read_dataset(with_pool, Display.of_nobody()).unlabelled
    zero_shot = _config(table).changed(method="zero-shot")  # it trains nothing
    assert len(read_dataset(zero_shot, Display.of_nobody()).holdout) == 12


def test_a_file_whose_name_is_not_utf_8_is_left_out_with_the_reason(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=3)
    file = root / "dark" / "circle" / "00.png"
    shutil.copy(file, file.parent / os.fsdecode(b"caf\xe9.png"))
    dataset, _ = _read(root)
    assert len(dataset.examples) == 18
    (skipped,) = describe_plan(_config(root), dataset, None, None).skipped
    assert skipped.to_json() == {"path": "dark/circle/caf\\udce9.png", "reason": "its name is not UTF-8"}
    said = StringIO()
    mention_skipped(dataset.skipped, root, Display(Console(file=said)), listed_in="nothing")
    assert said.getvalue().startswith("Skipped dark/circle/caf")
    said.getvalue().encode()


def test_what_is_left_out_of_a_pool_is_not_among_the_labelled_files_that_are(tmp_path: Path) -> None:
    root, pool = make_folder(tmp_path / "toy", images=3), make_folder(tmp_path / "pool", images=5)
    (root / "dark" / "circle" / "broken.png").write_bytes(b"no picture")
    dataset = read_dataset(_config(root).changed(unlabelled=(str(pool),)), Display())
    assert [file.path.name for file in dataset.skipped] == ["broken.png"]
    copies = len(dataset.skipped_of_pools)
    assert copies + len(dataset.unlabelled) == 5 * 9
    assert copies >= 3 * 9
    plan = describe_plan(_config(root), dataset, None, None)
    assert len(plan.skipped) == sum(plan.left_out.values()) == 1 + copies


def test_a_pool_of_which_nothing_is_left_is_named_with_its_option(tmp_path: Path) -> None:
    root, empty, pool = make_folder(tmp_path / "toy", images=2), tmp_path / "empty", str(tmp_path / "toy")
    empty.mkdir()
    for config, named in (
        (_config(root).changed(adapt=(pool,)), f"^--adapt {pool}: there is no image left"),
        (
            _config(root).changed(unlabelled=(str(empty),), adapt=(pool,)),
            f"^--unlabelled {empty} --adapt {pool}: there is no image left",
        ),
    ):
        with pytest.raises(DataError, match=named):
            read_dataset(config, Display())


@pytest.mark.parametrize("place", ["", "dark"])
def test_a_folder_whose_name_is_not_utf_8_is_refused(tmp_path: Path, place: str) -> None:
    root = make_folder(tmp_path / "toy", images=3)
    (root / place / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(DataError, match=r"caf\\udce9 is not UTF-8\. Rename the folder"):
        _read(root)


def test_the_data_folder_may_lie_below_any_name(tmp_path: Path) -> None:
    root = make_folder(tmp_path / os.fsdecode(b"caf\xe9") / "toy", images=3)
    assert _read(root)[0].train
    run = RunFolder(tmp_path / "run")
    run.begin(_config(root))
    run.write_text(run.report, str(root))
    assert "caf\\udce9" in run.report.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "recipe", "said"),
    [
        ("domain_net", PAPER, True),
        ("domain_net", replace(PAPER, selection="best"), True),
        ("domain_net", RECIPES["paper-domainnet"], False),
        ("domain_net", replace(PAPER, steps=7), False),
        ("domain_net", Recipe(), False),
        ("PACS", PAPER, False),
    ],
)
def test_the_papers_recipe_over_domainnet_names_the_one_for_it(
    tmp_path: Path, name: str, recipe: Recipe, said: bool
) -> None:
    root = make_folder(tmp_path / name, images=2)
    notes = StringIO()
    read_dataset(_config(root).changed(recipe=recipe), Display(Console(file=notes)))
    shown = " ".join(notes.getvalue().split())
    assert ("15,000 steps a stage and not 5,000: take --recipe paper-domainnet." in shown) == said
