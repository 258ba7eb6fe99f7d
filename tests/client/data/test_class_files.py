"""How classes are asked about: prompts, and names for codes, from files that people write."""

from pathlib import Path

import pytest

from client.data.class_files import wording_of
from client.data.domains import ImageFolder
from client.data.wording import Wording
from client.errors import ClientError

CLASSES = ("007", "flip_flop", "sneaker")


def _wording(root: Path, *templates: str, prompts: str | None = None, names: str | None = None) -> Wording:
    folder = ImageFolder(root, ("d",), CLASSES, {}, ())
    files: list[Path | None] = []
    for name, text in (("prompts.csv", prompts), ("codes.csv", names)):
        files.append(None if text is None else root / name)
        if text is not None:
            (root / name).write_text(text, encoding="utf-8")
    return wording_of(folder, templates=templates, prompts=files[0], names=files[1])


def test_prompts_of_a_class_are_averaged_and_the_others_take_the_template(tmp_path: Path) -> None:
    prompts = 'class,prompt\nsneaker,"a photo of a {}, a kind of shoe"\nsneaker,a trainer\n007,a spy\n'
    wording = _wording(tmp_path, "the {}", "my {}", prompts=prompts)
    assert wording.sentences(CLASSES) == (
        ("a spy",),
        ("the flip flop", "my flip flop"),
        ("a photo of a sneaker, a kind of shoe", "a trainer"),
    )


@pytest.mark.parametrize("part", [",", ";", "\t"])
def test_names_stand_for_codes_and_lie_beside_the_images(tmp_path: Path, part: str) -> None:
    rows = [("Class", "Name"), ("007", "running shoe"), ("008", "of a larger set")]
    (tmp_path / "names.csv").write_text("\ufeff" + "\r\n".join(map(part.join, rows)))
    assert _wording(tmp_path).sentences(CLASSES)[0] == ("a photo of a running shoe",)
    assert _wording(tmp_path, names="class,name\n007,boot\n").words == {"007": "boot"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prompts": "class,prompt\n007,a spy, or so\n"}, r"prompts\.csv, line 2: .*quotes"),
        ({"prompts": "class,prompt\n007,x\nsneakers,y\n"}, r"line 3: .*'sneakers' \(is 'sneaker' meant\?\)"),
        ({"prompts": "class,prompt\n007,\n"}, "line 2: there is no `prompt`"),
        ({"prompts": "class,prompt\n\n\n,x\n"}, "line 4: there is no `class`"),
        ({"prompts": "class,text\n007,x\n"}, "line 1: there is no column `prompt`.* has class, text"),
        ({"prompts": "class,prompt\n"}, "has no rows"),
        ({"names": "class,name\n007,boot\n007,shoe\n"}, "line 3: '007' is 'shoe', and 'boot' on line 2"),
        ({"names": "class,name\n1,boot\n"}, "names none of the classes, which are '007'"),
        ({"names": "class,name\n007,sneaker\n"}, "'007' and 'sneaker' are both asked for as"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(
    tmp_path: Path, given: dict[str, str], said: str
) -> None:
    with pytest.raises(ClientError, match=said):
        _wording(tmp_path, **given)


def test_a_file_for_a_larger_set_is_taken_where_every_class_has_a_prompt(tmp_path: Path) -> None:
    rows = [f"{name},the {name}" for name in (*CLASSES, "boot")]
    wording = _wording(tmp_path, prompts="\n".join(["class,prompt", *rows]))
    assert tuple(wording.prompts) == CLASSES


@pytest.mark.parametrize("template", ["a photo", "", "{0}", "{name}"])
def test_a_template_has_a_place_for_the_name(tmp_path: Path, template: str) -> None:
    with pytest.raises(ClientError, match=r"has no \{\}"):
        _wording(tmp_path, template)


def test_what_stands_in_other_braces_is_text(tmp_path: Path) -> None:
    wording = _wording(tmp_path, "{} {0.__class__} {x}")
    assert wording.sentences(["a"]) == (("a {0.__class__} {x}",),)
