"""`client data check`: what it counts, what it finds, and how it ends."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from client.cli.main import main
from client.data.listing import list_folder
from client.data.manifests import MANIFESTS
from client.data.splits import split
from tests.client.toy import draw, make_folder

# One name in two spellings of Unicode: "é" as two characters, and as one.
CAFE = ("cafe\u0301", "caf\u00e9")


def _check(folder: Path, *options: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["data", "check", str(folder), *options])
    return int(end.value.code or 0)


def _found(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = _check(folder, "--json")
    return code, json.loads(capsys.readouterr().out)


def test_a_sound_folder_is_counted_and_ends_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_folder(tmp_path / "toy", images=2)
    code, found = _found(root, capsys)
    assert code == 0
    assert found["sound"] is True
    assert found["images"]["dark"] == {"circle": 2, "square": 2, "tall_bar": 2}
    assert found["known_as"] is None
    assert _check(root) == 0
    shown = capsys.readouterr().out
    assert "18 images of 3 classes in 3 domains." in shown
    assert "Nothing wrong was found." in shown


def test_each_problem_is_found_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_folder(tmp_path / "toy", images=2)
    circle = root / "dark" / "circle"
    whole = (circle / "00.png").read_bytes()
    (circle / "cut.png").write_bytes(whole[: len(whole) // 2])
    (circle / "notes.txt").write_text("notes")
    shutil.copy(circle / "00.png", circle / "copy.png")
    # The same pixels in another file format, and so with other bytes.
    Image.open(circle / "00.png").save(root / "light" / "square" / "leak.webp", lossless=True)
    shutil.rmtree(root / "red" / "circle")

    code, found = _found(root, capsys)
    group = ["dark/circle/00.png", "dark/circle/copy.png", "light/square/leak.webp"]
    assert code == 1
    assert found["sound"] is False
    assert found["unreadable"] == [{"path": "dark/circle/cut.png", "reason": "not a readable picture"}]
    assert found["ignored"] == [{"path": "dark/circle/notes.txt", "reason": "not an image by name"}]
    assert found["in_several_domains"] == [group]
    assert found["in_several_classes"] == [group]
    assert found["repeats"] == 1
    assert found["missing_folders"] == ["red/circle"]
    assert found["images"]["red"] == {"circle": 0, "square": 2, "tall_bar": 2}

    assert _check(root) == 1
    shown = capsys.readouterr().out
    assert " = ".join(group) in shown
    assert "Nothing wrong" not in shown


def test_names_of_classes_hold_nothing_to_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "names.txt").write_text("circle\nsquare\n")
    assert _check(tmp_path / "names.txt") == 2
    assert "there is no labelled image in it" in capsys.readouterr().err


def test_one_class_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one" / "2024").mkdir(parents=True)
    draw("circle", "black", "white", 0).save(tmp_path / "one" / "2024" / "00.png")
    assert _check(tmp_path / "one") == 1
    shown = capsys.readouterr().out
    assert "One class only (a student learns to tell classes apart): 1\n  2024\n" in shown
    assert "Nothing wrong" not in shown
    assert _found(tmp_path / "one", capsys)[1]["sound"] is False


@pytest.mark.parametrize(
    "problem",
    [
        "unreadable", "in_several_domains", "in_several_classes", "may_be_parted", "missing_folders",
        "differences",
    ],
)  # fmt: skip
def test_one_problem_suffices(tmp_path: Path, capsys: pytest.CaptureFixture[str], problem: str) -> None:
    root = make_folder(tmp_path / ("PACS" if problem == "differences" else "toy"), images=1)
    if problem == "unreadable":
        (root / "dark" / "circle" / "empty.png").touch()
    elif problem == "in_several_domains":
        shutil.copy(root / "dark" / "circle" / "00.png", root / "red" / "circle" / "leak.png")
    elif problem == "in_several_classes":
        shutil.copy(root / "dark" / "circle" / "00.png", root / "dark" / "square" / "leak.png")
    elif problem == "may_be_parted":
        Image.open(root / "dark" / "circle" / "00.png").save(
            root / "dark" / "circle" / "other.png", dpi=(72, 72)
        )
    elif problem == "missing_folders":
        shutil.rmtree(root / "red" / "circle")
    code, found = _found(root, capsys)
    names = (
        "unreadable", "in_several_domains", "in_several_classes", "may_be_parted", "missing_folders",
        "differences",
    )  # fmt: skip
    assert [name for name in names if found[name]] == [problem]
    assert code == 1


def test_copies_that_a_split_parts_are_a_problem_and_others_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_folder(tmp_path / "toy", images=20)
    for number, file in enumerate(sorted(root.glob("*/*/*.png"))):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(file)
        shutil.copy(file, file.with_name(f"same-{file.name}"))
    code, found = _found(root, capsys)
    assert (code, found["repeats"], found["may_be_parted"]) == (0, 180, [])
    for file in root.glob("*/*/same-*.png"):
        Image.open(file).save(file, dpi=(72, 72))
    code, found = _found(root, capsys)
    assert (code, found["sound"], found["repeats"], len(found["may_be_parted"])) == (1, False, 0, 180)
    folder = list_folder(root)
    examples, _ = folder.read(folder.domains)
    held = split(examples, holdout=0.2, seed=0)[1]
    names = {examples[position].path.with_name(examples[position].path.name[-6:]) for position in held}
    assert len(names) < len(held) < 2 * len(names)  # some of the pairs are parted
    assert _check(root) == 1
    shown = capsys.readouterr().out
    assert "one side of a split" not in shown
    assert "Copies that a split may part, so that what is held out is trained on (keep one file" in shown
    assert "  dark/circle/00.png = dark/circle/same-00.png\n" in shown


@pytest.mark.parametrize(
    ("bytes_are", "first", "other", "is_sound"),
    [
        ("equal", "train", "val", False),
        ("equal", "train", "", True),
        ("equal", "val", "", True),
        ("others", "train", "", False),
        ("others", "train", "val", False),
        ("others", "train", "train", True),
        ("others", "val", "val", True),
    ],
)
def test_a_table_may_part_copies_or_keep_them_together(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    bytes_are: str,
    first: str,
    other: str,
    is_sound: bool,
) -> None:
    root = make_folder(tmp_path / "toy", images=2)
    picture = root / "dark" / "circle" / "00.png"
    shutil.copy(picture, picture.with_name("copy.png"))
    if bytes_are == "others":
        Image.open(picture).save(picture.with_name("copy.png"), dpi=(72, 72))
    told = {"00.png": first, "copy.png": other}
    rows = [
        f"{file},{file.parent.name},{file.parent.parent.name},"
        f"{told.get(file.name, '') if file.parent == picture.parent else ''}"
        for file in sorted(root.glob("*/*/*.png"))
    ]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["path,label,domain,split", *rows]))
    code, found = _found(table, capsys)
    assert (code, found["sound"]) == (0 if is_sound else 1, is_sound)
    assert found["repeats"] == (1 if is_sound else 0)
    assert len(found["may_be_parted"]) == (0 if is_sound else 1)


def test_a_known_data_set_is_named_with_its_differences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pacs = MANIFESTS[0]
    for n, domain in enumerate(pacs.images):
        for m, name in enumerate(pacs.class_names):
            folder = tmp_path / "kfold" / domain / name
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8), (40 * n, 30 * m, 0)).save(folder / "pic_001.png")
    assert _check(tmp_path / "kfold") == 1
    shown = capsys.readouterr().out
    assert "Differences from PACS: 4" in shown
    assert "The domain sketch has 7 images instead of 3,929." in shown


def test_more_problems_than_fit_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_folder(tmp_path / "toy", images=1)
    for n in range(12):
        (root / "dark" / "circle" / f"empty{n:02}.png").touch()
    assert _check(root) == 1
    shown = capsys.readouterr().out
    assert "(they will be skipped): 12" in shown
    assert "empty09.png" in shown
    assert "empty10.png" not in shown
    assert "... and 2 more; --json lists all." in shown


def test_a_folder_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _check(tmp_path / "missing") == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_run_over_a_known_data_set_says_that_it_is_not_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(tmp_path / "toy", images=4)
    make_folder(tmp_path / "PACS", images=4)
    for name in ("toy", "PACS"):
        with pytest.raises(SystemExit) as end:
            main(["plan", "--data", str(tmp_path / name), "--target-domain", "red", "--method", "erm"])
        assert not end.value.code
        note = "looks like PACS and is not all of it: The domain art_painting is missing."
        assert (note in " ".join(capsys.readouterr().err.split())) == (name == "PACS")


def test_a_run_says_when_the_student_sees_images_far_larger_than_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_folder(tmp_path / "toy", images=4)
    for image_size, said in ((80, False), (81, True)):
        command = ["plan", "--data", str(root), "--target-domain", "red", "--method", "erm"]
        with pytest.raises(SystemExit) as end:
            main([*command, "--image-size", str(image_size)])
        assert not end.value.code
        note = "40 px or less on their shorter side, and the student sees them at 81 px: --image-size 64"
        assert (note in " ".join(capsys.readouterr().err.split())) == said


def test_pictures_that_are_in_no_class_are_no_sound_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_folder(tmp_path / "toy", images=2)
    for number, name in enumerate(("loose.png", "dark/loose.jpg", "dark/circle/far/below/more.png")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        draw("circle", "white", "green", seed=number).save(root / name)
    (root / "dark" / "circle" / "photo.svg").write_text("<svg/>")
    (root / "dark" / ".cache").mkdir()
    (root / "dark" / ".cache" / "thumb.png").write_bytes((root / "loose.png").read_bytes())
    code, found = _found(root, capsys)
    assert (code, found["sound"]) == (1, False)
    assert found["left_out"] == {
        "hidden": 1, "loose in a domain": 1, "loose in the root": 1, "unsupported format (.svg)": 1,
    }  # fmt: skip
    assert found["in_deeper_folders"] == 1
    assert found["images"]["dark"]["circle"] == 3
    assert _check(root) == 1
    shown = capsys.readouterr().out
    assert "Pictures that are left out (put each into <domain>/<class>/, as a file of an accepted" in shown
    assert "  dark/loose.jpg: loose in a domain" in shown
    assert "1 of them lie in folders below their class's" in shown
    assert "Nothing wrong was found" not in shown


def test_what_distorts_nothing_is_told_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_folder(tmp_path / "toy", images=2)
    for seed, (domain, name) in enumerate((("dark", CAFE[0]), ("light", CAFE[1]), ("red", CAFE[1]))):
        (root / domain / name).mkdir()
        for n in range(2):
            picture = draw("square", "grey", "yellow", seed=7000 + 2 * seed + n)
            picture.save(root / domain / name / f"set__bell-{n}.png")
    (root / "dark" / "circle" / "again.png").symlink_to("00.png")
    assert _check(root) == 0
    shown = capsys.readouterr().out
    assert "24 images of 4 classes" in shown
    assert "1 folders are spelled in decomposed Unicode" in shown
    assert (
        "6 are named <set>__<name> and alike: if these are variants of one drawing, --group-by-name" in shown
    )
    assert "Left out: 1 a link to what is taken already; --json lists them." in shown


def test_a_plan_counts_what_is_left_out_and_names_five(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_folder(tmp_path / "toy", images=4)
    for n in range(20):
        (root / "dark" / "circle" / f"empty{n:02}.png").touch()
        (root / "dark" / f"loose{n:02}.png").touch()
        (root / "red" / "circle" / f".hidden{n:02}.png").touch()
    command = ["plan", "--data", str(root), "--target-domain", "red", "--method", "erm"]
    with pytest.raises(SystemExit):
        main(command)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("Skipped dark/") == 5
    assert "... and 35 more; --json lists them." in said
    assert f"Loose pictures are in no class: put them into {root}/<domain>/<class>/." in said
    assert "Left out: 20 loose in a domain, 20 empty file; --json lists them." in said
    with pytest.raises(SystemExit):
        main([*command, "--json"])
    plan = json.loads(capsys.readouterr().out)
    assert plan["left_out"] == {"loose in a domain": 20, "empty file": 20}
    assert len(plan["skipped"]) == 40
