"""What the weights have seen that a run begins with, and what the first of some generations began with."""

import shutil
from collections.abc import Iterable
from io import StringIO
from pathlib import Path

import pytest
import torch
from PIL import ExifTags, Image
from rich.console import Console

from client.data import examples
from client.data.examples import Example
from client.data.sending import as_png
from client.errors import ClientError, UsageError
from client.learning.tensor_file import save_tensors
from client.progress import Display
from client.runs.config import RunConfig
from client.runs.dataset import Dataset, read_dataset
from client.runs.folder import RunFolder
from client.runs.generations import (
    NOTHING_SEEN,
    Seen,
    first_weights,
    is_adapted,
    seen_before,
    seen_by_student,
)
from tests.client.toy import CLASSES, draw, make_folder, run_config


def _run(path: Path, weights: Path | None) -> Path:
    """A run that began with these weights; its student's file."""
    config = run_config(target_domain=None, student_weights=weights)
    run = RunFolder(path)
    run.begin(config)
    save_tensors({"weight": torch.zeros(1)}, run.student, {"classes": "[]"})
    return run.student


def test_generations_lead_back_to_the_weights_that_the_first_one_began_with(tmp_path: Path) -> None:
    backbone = tmp_path / "backbone.safetensors"
    save_tensors({"weight": torch.zeros(1)}, backbone, {})
    assert first_weights(None) is None
    assert first_weights(backbone) == backbone
    for start, begun_with in (("named", None), ("own", backbone)):
        first = _run(tmp_path / start, begun_with)
        second = _run(tmp_path / f"{start}-2", first)
        assert first_weights(second) == first_weights(first) == begun_with
    backbone.unlink()
    assert first_weights(second) is None


def test_weights_that_may_have_seen_the_images_are_not_begun_with(tmp_path: Path) -> None:
    first = _run(tmp_path / "run", None)
    second = _run(tmp_path / "run-2", first)
    copy = tmp_path / "student.safetensors"
    shutil.copy(second, copy)
    assert first_weights(copy) is None
    shutil.rmtree(first.parent)
    assert first_weights(second) is None
    second.parent.rename(first.parent)  # now it says that it began with its own student
    assert first_weights(first) is None


_NOBODY = Display.of_nobody()


def _config(root: Path, weights: Path | None = None, *, seed: int = 0) -> RunConfig:
    begun_with = None if weights is None else str(weights)
    return run_config(root, target_domain=None, seed=seed, student_weights=begun_with)


def _finish(
    run: RunFolder,
    trained: Iterable[Example],
    seen: Seen = NOTHING_SEEN,
    weight: float = 0,
    held: Iterable[Example] = (),
) -> Path:
    """Leave a student that was trained on these, and began with what has seen those; its file."""
    named = seen.write(run.seen, trained, held)
    save_tensors({"weight": torch.full((1,), weight)}, run.student, {"classes": "[]", "seen": named})
    return run.student


def _generation(path: Path, config: RunConfig) -> tuple[RunFolder, Dataset]:
    """A run that is finished, and its images."""
    run = RunFolder(path)
    run.begin(config)
    dataset = read_dataset(config, _NOBODY)
    _finish(run, [dataset.examples[position] for position in dataset.train], dataset.seen)
    return run, dataset


def _digests(dataset: Dataset, positions: Iterable[int]) -> set[str]:
    return {dataset.examples[position].digest for position in positions}


def _said_of(config: RunConfig, run: RunFolder | None = None) -> tuple[Seen, str]:
    """What the weights have seen, and the notes."""
    said = StringIO()
    seen = seen_before(config, run, Display(Console(file=said)))
    return seen, " ".join(said.getvalue().split())


def _add(root: Path, count: int) -> None:
    for number in range(count):
        name = CLASSES[number % len(CLASSES)]
        draw(name, "black", "white", seed=5000 + number).save(root / "dark" / name / f"new{number}.png")


def test_what_the_weights_have_seen_is_not_held_out_whatever_is_added_or_removed(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=10)
    first, before = _generation(tmp_path / "run", _config(root))
    trained = _digests(before, before.train)
    same = read_dataset(_config(root, first.student), _NOBODY)
    assert (same.train, same.holdout) == (before.train, before.holdout)
    for seed in range(3):  # what is left to hold out is what was held out before
        other = read_dataset(_config(root, first.student, seed=seed), _NOBODY)
        assert other.holdout == before.holdout

    _add(root, 40)
    for seed in range(5):
        more = read_dataset(_config(root, first.student, seed=seed), _NOBODY)
        assert not trained & _digests(more, more.holdout)
        assert len(more.holdout) == 6 + 6 + 14
    unaware = read_dataset(_config(root), _NOBODY)
    assert trained & _digests(unaware, unaware.holdout)

    for file in root.glob("*/*/0[0-4].png"):
        file.unlink()
    fewer = read_dataset(_config(root, first.student), _NOBODY)
    assert fewer.holdout
    assert not trained & _digests(fewer, fewer.holdout)


def test_what_a_finished_run_has_trained_on_is_not_held_out_whatever_becomes_of_its_images(
    tmp_path: Path,
) -> None:
    root = make_folder(tmp_path / "toy", images=10)
    first, before = _generation(tmp_path / "run", _config(root))
    second, _ = _generation(tmp_path / "run-2", _config(root, first.student))
    trained = _digests(before, before.train)
    for run in (first, second):
        same = read_dataset(run.read_config(), _NOBODY, seen=seen_by_student(run))
        assert (same.train, same.holdout) == (before.train, before.holdout)
    _add(root, 40)
    for run in (first, second):
        more = read_dataset(run.read_config(), _NOBODY, seen=seen_by_student(run))
        assert more.holdout
        assert not trained & _digests(more, more.holdout)


def test_a_finished_run_is_not_refused_where_its_images_are_to_be_tested_on_by_now(tmp_path: Path) -> None:
    """Two files of a table may have the same bytes, and a file may be in another domain than it was."""
    root = make_folder(tmp_path / "toy", images=5)
    run, before = _generation(tmp_path / "run", _config(root))
    kept, trained = before.examples[before.holdout[0]], before.examples[before.train[0]]
    table = tmp_path / "table.csv"
    rows = [
        f"{each.path},{each.path.parent.name},{each.domain},{'val' * (each in (kept, trained))}"
        for each in before.examples
    ]
    table.write_text("\n".join(["path,label,domain,split", *rows]))
    seen = seen_by_student(run)
    dataset = read_dataset(_config(table), _NOBODY, seen=seen)
    held = _digests(dataset, dataset.holdout)
    assert kept.digest in held
    assert trained.digest not in held
    assert read_dataset(_config(root).changed(target_domain="red"), _NOBODY, seen=seen).target == "red"


def test_a_domain_all_of_which_was_seen_is_not_measured(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=5)
    everything = read_dataset(_config(root), _NOBODY)
    run = RunFolder(tmp_path / "run")
    run.begin(_config(root))
    weights = _finish(run, [each for each in everything.examples if each.domain == "red"])
    said = StringIO()
    dataset = read_dataset(_config(root, weights), Display(Console(file=said)))
    assert {dataset.examples[position].domain for position in dataset.holdout} == {"dark", "light"}
    assert "No image of the domain red is held out: it is not measured." in said.getvalue()


def test_a_table_that_holds_out_what_the_weights_have_seen_is_refused(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=5)
    first, before = _generation(tmp_path / "run", _config(root))
    kept, seen = before.examples[before.holdout[0]], before.examples[before.train[0]]
    files = {str(each.path): each for each in before.examples}
    table = tmp_path / "table.csv"

    def write(*held: str) -> None:
        rows = [
            f"{path},{each.path.parent.name},{each.domain},{'val' * (path in held)}"
            for path, each in files.items()
        ]
        table.write_text("\n".join(["path,label,domain,split", *rows]))

    write(kept.file)
    dataset = read_dataset(_config(table, first.student), _NOBODY)
    assert kept.digest in _digests(dataset, dataset.holdout)
    write(kept.file, seen.file)
    with pytest.raises(UsageError, match=r"holds out 1 images .* were trained on"):
        read_dataset(_config(table, first.student), _NOBODY)


def test_a_target_that_an_earlier_generation_was_trained_on_is_refused(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=5)
    first, before = _generation(tmp_path / "run", _config(root))
    shutil.copytree(root, tmp_path / "fewer")
    shutil.rmtree(tmp_path / "fewer" / "red")
    second, _ = _generation(tmp_path / "run-2", _config(tmp_path / "fewer", first.student))
    learnt = sum(before.examples[position].domain == "red" for position in before.train)
    wanted = _config(root, second.student).changed(target_domain="red")
    with pytest.raises(UsageError, match=f"trained on {learnt} of the 15 images of red, so"):
        read_dataset(wanted, _NOBODY)
    assert read_dataset(wanted.changed(student_weights=None), _NOBODY).target == "red"


def test_a_target_that_chose_the_weights_of_an_earlier_generation_is_refused(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=5)
    everything = read_dataset(_config(root), _NOBODY).examples
    red = [each for each in everything if each.domain == "red"]
    others = [each for each in everything if each.domain != "red"]
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run-2")
    first.begin(_config(root))
    weights = _finish(first, others, held=red[:9])
    second.begin(_config(root, weights))
    seen = seen_before(_config(root, weights), second, _NOBODY)
    _finish(second, others, seen, weight=1, held=red[9:10])
    for run, held in ((first, 9), (second, 10)):
        wanted = _config(root, run.student).changed(target_domain="red")
        with pytest.raises(UsageError, match=f"chosen by their answers about {held} of the 15 images of red"):
            read_dataset(wanted, _NOBODY)
        assert seen_by_student(run).copies_among(red, of=()) == list(range(held))
    dataset = read_dataset(_config(root, second.student), _NOBODY)
    assert {dataset.examples[position].domain for position in dataset.holdout} == {"red"}
    # To a run that is taken up again, its own hold-outs are none of before.
    assert len(seen_before(_config(root, weights), second, _NOBODY).held) == 9


def _turn_all(root: Path) -> None:
    """Save all as JPEG files that EXIF turns, so that a PNG is sent of each."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for file in root.glob("*/*/*.png"):
        Image.open(file).save(file.with_suffix(".jpg"), exif=exif)
        file.unlink()


def test_images_are_known_again_by_what_pillow_encodes_in_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(tmp_path / "toy", images=2)
    _turn_all(root)
    first, before = _generation(tmp_path / "run", _config(root))
    trained = [before.examples[position] for position in before.train]
    assert all(each.digest != each.file_digest for each in trained)
    monkeypatch.setattr(examples, "as_png", lambda pixels: as_png(pixels) + b"other")
    after = read_dataset(_config(root), _NOBODY)
    assert not _digests(before, before.train) & _digests(after, after.train)
    seen = seen_before(_config(root, first.student), None, _NOBODY)
    assert [after.examples[position].file for position in seen.among(after.examples)] == [
        each.file for each in trained
    ]
    wanted = _config(root, first.student).changed(target_domain="red")
    with pytest.raises(UsageError, match="of the 6 images of red, so"):
        read_dataset(wanted, _NOBODY)


def test_a_run_keeps_what_its_weights_have_seen_whatever_becomes_of_the_other_run(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=5)
    first, before = _generation(tmp_path / "run", _config(root))
    config = _config(root, first.student)
    second = RunFolder(tmp_path / "run-2")
    second.begin(config)
    begun = seen_before(config, second, _NOBODY)
    begun.keep(second)
    first.seen.unlink()
    assert _said_of(config, second)[0].images.tolist() == begun.images.tolist()
    with pytest.raises(UsageError, match=r"seen\.safetensors is missing or is not of the student beside it"):
        seen_before(config, None, _NOBODY)

    _finish(second, [before.examples[before.holdout[0]]], begun)
    finished = second.seen.read_bytes()
    begun.keep(second)
    assert second.seen.read_bytes() == finished  # it is that of the student by now
    assert seen_before(config, second, _NOBODY).images.tolist() == begun.images.tolist()
    learnt = {*begun.images.tolist(), *seen_by_student(second).images.tolist()}
    assert len(seen_by_student(second).images) == len(learnt) == len(before.train) + 1
    assert len(seen_before(_config(root, second.student), None, _NOBODY).images) == len(before.train) + 1

    _finish(first, [before.examples[before.holdout[1]]], weight=1)  # another student, where the first one lay
    assert len(seen_before(config, second, _NOBODY).images) == 1
    first.student.unlink()
    assert seen_before(config, second, _NOBODY).images.tolist() == begun.images.tolist()


def test_weights_of_which_nobody_knows_what_they_have_seen_are_said_to_be(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=5)
    first, before = _generation(tmp_path / "run", _config(root))
    backbone, copy = tmp_path / "backbone.safetensors", tmp_path / "copy" / "student.safetensors"
    save_tensors({"weight": torch.zeros(1)}, backbone, {})
    assert _said_of(_config(root, backbone)) == (NOTHING_SEEN, "")
    assert _said_of(_config(root, first.student))[1] == ""

    copy.parent.mkdir()
    shutil.copy(first.student, copy)
    seen, said = _said_of(_config(root, copy))
    assert not seen.images.size
    assert f"cannot be told which images the weights of {copy} were trained on" in said
    second, _ = _generation(tmp_path / "run-2", _config(root, copy))
    seen, said = _said_of(_config(root, second.student))
    assert len(seen.images) == len(before.train)  # what it has learnt itself is known
    assert f"cannot be told which images the weights of {second.student} were trained on" in said
    shutil.copy(first.seen, copy.parent)
    assert _said_of(_config(root, copy))[1] == ""

    save_tensors({"weight": torch.zeros(1)}, first.student, {"classes": "[]"})  # it names no record
    seen, said = _said_of(_config(root, first.student))
    assert "cannot be told" in said
    assert not seen.images.size


def test_who_begins_with_an_adapted_student_is_adapted(tmp_path: Path) -> None:
    weights = tmp_path / "copy.safetensors"
    config = _config(tmp_path, weights)
    assert not is_adapted(_config(tmp_path))
    assert not is_adapted(config)  # there is no such file
    assert is_adapted(config.changed(adapt=("pool",)))
    for said, told in (({}, False), ({"adapted": "False"}, False), ({"adapted": "True"}, True)):
        save_tensors({"weight": torch.zeros(1)}, weights, {"classes": "[]", **said})
        assert is_adapted(config) is told


def test_a_student_whose_file_is_damaged_is_not_taken_for_one_that_has_seen_nothing(tmp_path: Path) -> None:
    weights = tmp_path / "copy.safetensors"
    save_tensors({"weight": torch.zeros(1)}, weights, {"classes": "[]", "steps": "many"})
    with pytest.raises(ClientError, match="The student's file is damaged: steps is 'many'"):
        _said_of(_config(tmp_path, weights))
