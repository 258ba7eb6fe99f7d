"""From options to what makes a run this run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from client.api.generations import next_options, of_next
from client.api.settling import pool_words, run_config
from client.data.listing import list_folder
from client.data.pool import find_pool
from client.learning.recipe import Recipe, RecipeName
from client.options.training import DistillOptions
from client.runs.folder import RunFolder


@pytest.mark.parametrize(
    "pattern", ["s/*.png", "s/**/*.png", "**", "[s]/1.png", "../shots [[]2024] */s/[12].png"]
)
def test_a_pattern_is_found_from_a_folder_that_is_named_as_a_pattern_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    (tmp_path / "shots [2024] *" / "s").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "shots [2024] *")
    Path("s/1.png").touch()
    (word,) = pool_words([pattern])
    monkeypatch.chdir(tmp_path)
    (found,) = find_pool(word).images
    assert found.samefile(tmp_path / "shots [2024] *" / "s" / "1.png")
    assert pool_words([word]) == (word,)  # as a next generation takes it from the run


def test_what_is_named_itself_is_no_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shots [2024]").mkdir()
    monkeypatch.chdir(tmp_path / "shots [2024]")
    Path("[1].png").touch()
    for word in ("[1].png", ".", "missing.png", "/else/where [1]/*.png"):
        assert pool_words([word]) == (str(Path(word).absolute()),)


@pytest.mark.parametrize("name", ["labels.csv", "names.txt"])
def test_a_file_behind_a_link_is_read_under_the_links_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").touch()
    (tmp_path / "stored").write_text("path,label\na.png,cat\n")  # as DVC keeps it
    link = tmp_path / "data" / name
    link.symlink_to("../stored")
    config = run_config(DistillOptions(data=link, method="erm"))
    assert list_folder(config.data) == list_folder(link)
    assert config.data == tmp_path.resolve() / "data" / name


@pytest.mark.parametrize(
    ("recipe", "before", "now", "selection"),
    [
        ("default", "erm+swad", "erm", "best"),
        ("default", "erm", "lp-ft+swad", "swad"),
        ("paper", "erm+best", "erm", "swad"),
        (Recipe(learning_rate=0.1, selection="swad"), "erm", "lp-ft", "swad"),
    ],
)
@pytest.mark.parametrize("steps", [None, 3])
def test_another_method_of_a_next_generation_does_not_have_the_variants_of_the_last(
    recipe: RecipeName | Recipe,
    before: str,
    now: str,
    selection: str,
    steps: int | None,
    tmp_path: Path,
) -> None:
    first = run_config(DistillOptions(data=tmp_path, method=before, recipe=recipe, steps=steps))
    run = RunFolder(tmp_path / "run")
    run.begin(first)
    save_file({"weight": torch.zeros(1)}, run.student)
    assert run_config(next_options(run.path, seed=1)).recipe == first.recipe
    second = run_config(next_options(run.path, method=now)).recipe
    assert second.selection == selection
    assert replace(second, selection=first.recipe.selection) == first.recipe
    anew = run_config(next_options(run.path, method="erm", recipe="paper")).recipe
    assert anew.selection == "swad"


def test_a_next_generation_is_otherwise_where_somebody_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the environment or tuition.toml says counts for the vendor, and not for what the run is."""
    run = RunFolder(tmp_path / "run")
    run.begin(run_config(DistillOptions(data=tmp_path, seed=4, unlabelled=("/pool",))))
    save_file({"weight": torch.zeros(1)}, run.student)
    monkeypatch.setenv("TUITION_DATA", "environed")
    monkeypatch.setenv("TUITION_CACHE", "environed.db")
    said = DistillOptions(seed=9, steps=3, batch=True, max_spend_micros=7, unlabelled=("/more",))
    said.model_fields_set.intersection_update({"batch"})  # the others are those of the file
    following = of_next(run.path, said)
    assert (following.data, following.seed, following.steps) == (tmp_path, 4, None)
    assert (following.unlabelled, following.student_weights) == (("/pool",), run.student)
    assert (following.cache, following.batch, following.out) == (
        Path("environed.db"),
        True,
        tmp_path / "run-2",
    )
    assert (following.max_spend_micros, following.agreed) == (7, False)
    changed = next_options(
        run.path, classes=Path("names.txt"), seed=9, unlabelled=("/more",), max_spend_micros=7
    )
    assert (changed.labelled, changed.seed, changed.agreed) == (Path("names.txt"), 9, True)
    assert changed.unlabelled == ("/pool", "/more")
