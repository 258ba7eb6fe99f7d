"""The guide of docs/extending.md at work: its code is run, and trains students in one step each."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import client
from client.data.own_set import write_set
from client.errors import UsageError
from client.learning.backbones import STUDENTS, empty_backbone, python_backbones
from client.learning.methods import method_of, register_method
from client.purchase.selection import acquisition_of, chosen
from tests.client.toy import draw, make_folder, tiny_student

PAGE = Path(__file__).parents[3] / "docs" / "extending.md"


@pytest.fixture(scope="module")
def guide() -> dict[str, Any]:
    """The names that the page's code defines."""
    names: dict[str, Any] = {"__name__": "guide"}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, names)
        assert block.count("\n") <= 30
    return names


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the options of a run of one step over toy pictures, and a teacher that knows colours."""
    make_folder(tmp_path / "toy", images=5)
    (tmp_path / "pool").mkdir()
    for number in range(4):
        draw("circle", "blue", "yellow", seed=number).save(tmp_path / "pool" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    tiny = tiny_student(tmp_path)

    def made(**given: Any) -> client.DistillOptions:
        usual = {**tiny, "data": "toy", "target_domain": "red", "cache": tmp_path / "cache.db", "out": "run"}
        return client.DistillOptions(**{**usual, "image_size": 32, "steps": 1, "budget": 100, **given})

    return made


def colours() -> client.Teacher:
    def images(pictures: list[Image.Image]) -> Any:
        return np.stack([np.asarray(each).mean((0, 1)) + 1 for each in pictures])

    def texts(words: list[str]) -> Any:
        return np.array([[len(word), 1.0, 1.0] for word in words])

    return client.Teacher.from_callable(images, texts, name="colours", fingerprint="1")


def test_methods_of_the_guide_train_students_and_an_edit_makes_them_outdated(
    guide: dict[str, Any], options: Any, tmp_path: Path
) -> None:
    run = client.distill(options(method=guide["near"], teacher=colours()))
    assert run.summary.method == "near"
    assert run.summary.queries_bought == 3 + run.summary.train_images
    stamp = run.student("cpu").metadata["stamp"]
    client.distill(options(method=guide["near"], teacher=colours()))
    assert client.load_student("run", device="cpu").metadata["stamp"] == stamp
    again: dict[str, Any] = {"__name__": "guide"}
    source = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    exec(source.replace("1 - near", "2 - near"), again)
    with pytest.raises(UsageError, match="finished student of other images, answers, code or weights"):
        client.distill(options(method=again["near"], teacher=colours()))
    client.distill(options(method=again["near"], teacher=colours(), replace=True))
    assert client.load_student("run", device="cpu").metadata["stamp"] != stamp
    assert (
        json.loads((tmp_path / "run/purchase.json").read_text())["queries_bought"]
        == 3 + run.summary.train_images
    )


def test_an_averaged_teacher_of_the_guide_learns_of_images_without_labels_for_nothing(
    guide: dict[str, Any], options: Any
) -> None:
    torch.manual_seed(0)
    run = client.distill(options(method=guide["agreeing"], unlabelled=["pool"], budget=None))
    assert run.summary.unlabelled_images == 4
    assert run.summary.queries_bought == run.summary.queries_cached == 0
    assert run.plan.unlabelled_images == 4


@pytest.mark.usefixtures("onnx")
def test_a_student_and_a_view_of_the_guide_are_trained_saved_loaded_and_exported(
    guide: dict[str, Any], options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {"student": guide["Small"], "student_weights": None, "transform": guide["views"]}
    run = client.distill(options(**mine, method="erm", image_size=None, budget=None))
    assert run.summary.student == "guide.Small"
    assert run.summary.image_size == 64
    assert run.summary.size.parameters == sum(p.numel() for p in guide["Small"]().parameters()) + 3 * 33
    picture = "toy/red/circle/00.png"
    told = client.load_student("run", device="cpu").predict(picture).classes[picture]
    by_onnx = client.load_student("run/student.onnx").predict(picture).classes[picture]
    assert by_onnx == pytest.approx(told, abs=1e-4)

    monkeypatch.setattr(STUDENTS, "_registered", {})  # as in another process
    monkeypatch.setattr(python_backbones, "_MADE", {})
    with pytest.raises(UsageError, match=r"tuition\.register_student\('guide\.Small'"):
        client.load_student("run", device="cpu")
    client.register_student("guide.Small", guide["Small"])
    assert client.load_student("run", device="cpu").predict(picture).classes[picture] == told

    first = client.load_student("run", device="cpu").metadata["stamp"]
    other = {**mine, "transform": lambda image: image}
    with pytest.raises(UsageError, match="needs a name"):
        client.distill(options(**other, method="erm", image_size=None, budget=None))
    next_one = client.next_options("run", cache=tmp_path / "cache.db", steps=1, out="run-2")
    client.distill(next_one)  # in this process, the names stand for the code
    assert client.load_student("run-2", device="cpu").metadata["stamp"] != first


class _Wide(torch.nn.Module):
    num_features = 4

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.given = given
        self.scale = torch.nn.Parameter(torch.ones(4))

    def forward(self, pixels: torch.Tensor) -> Any:
        return self.given(pixels.mean((2, 3)).repeat(1, 2)[:, :4] * self.scale)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (_Wide(lambda rows: rows[:, :3]), r"gives \(2, 3\) for two images of 32 pixels"),
        (_Wide(lambda rows: rows * float("inf")), "not finite"),
        (_Wide(lambda rows: rows.missing), r"raised AttributeError: .* \(test_guide.py, line"),
        (torch.nn.Flatten(), "needs an attribute `num_features`"),
        (dict, "is of type dict: it has to be an nn.Module"),
    ],
)
def test_a_network_that_gives_no_features_is_refused_before_anything_is_bought(
    options: Any, network: Any, said: str
) -> None:
    with pytest.raises(client.ClientError, match=said):
        client.distill(options(student=network, student_weights=None, teacher=colours()))
    assert not Path("run/purchase.json").exists()


def test_a_file_of_a_run_has_no_code_run(
    options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stranger.py").write_text("raise SystemExit('it ran')\n")
    run = client.distill(options(method="erm", budget=None))
    for name in ("method", "student", "transform"):
        config = json.loads((run.path / "config.json").read_text()) | {name: "python:stranger:it"}
        (tmp_path / "other").mkdir(exist_ok=True)
        for file in run.path.iterdir():
            if file.is_file():
                (tmp_path / "other" / file.name).write_bytes(file.read_bytes())
        (tmp_path / "other/config.json").write_text(json.dumps(config))
        with pytest.raises(UsageError, match=f"give --{name} again"):
            client.next_options("other")
    with pytest.raises(UsageError, match="no file says what code runs here"):
        empty_backbone("python:stranger:it", image_size=32)


def test_a_comparison_finds_code_by_name_and_refuses_what_was_edited(options: Any, tmp_path: Path) -> None:
    page = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    module = tmp_path / "my_methods_of_the_guide.py"
    module.write_text("\n".join(page[:2]))
    usual = options()
    comparison = client.CompareOptions(
        **{
            name: getattr(usual, name)
            for name in ("student", "student_weights", "image_size", "cache", "steps")
        },
        data=Path("toy"),
        methods=(f"python:{module.stem}:agreeing+swad", "python:nowhere:near"),
        target_domains=("red",),
        seeds=1,
        out=tmp_path / "table",
    )
    with pytest.raises(
        UsageError, match="--method python:nowhere:near cannot be loaded: ModuleNotFoundError"
    ):
        client.compare(comparison)
    comparison = comparison.model_copy(update={"methods": comparison.methods[:1]})
    (row,) = client.compare(comparison).table.runs
    assert row.method == f"python:{module.stem}:agreeing+swad"
    client.compare(comparison)  # nothing is left to run
    method = client.Method(**{**vars(method_of(row.method)), "loss": lambda *_: None})
    register_method(method)
    with pytest.raises(UsageError, match=r"The code of python:.* has changed since"):
        client.compare(comparison)


class _Watched:
    """Chooses the last images of each state, and notes what it is shown."""

    per_round = 3

    def __init__(self) -> None:
        self.states: list[client.PoolState] = []

    def next(self, state: client.PoolState, n: int) -> list[int]:
        self.states.append(state)
        return state.left[-n:]


def _bought(cache: Path) -> set[str]:
    """The toy pictures of which a cache has the embedding."""
    files = {str(file): client.Query.image_file(file) for file in Path("toy").glob("*/*/*.png")}
    with client.EmbeddingCache(cache) as kept:
        known = {query for each in kept.fingerprints() for query in kept.known(each, list(files.values()))}
    return {name for name, query in files.items() if query in known}


def test_rounds_never_pass_the_budget_and_go_on_where_they_stopped(options: Any, tmp_path: Path) -> None:
    watched = _Watched()
    given = {"select": watched, "teacher": colours(), "method": "no-align"}
    run = client.distill(options(**given, budget=3 + 4))
    assert run.summary.queries_bought == 3 + 4
    first = _bought(tmp_path / "cache.db")
    client.distill(options(**given, budget=3 + 8, replace=True))
    second, states = _bought(tmp_path / "cache.db"), watched.states
    assert (len(first), len(second)) == (4, 8)
    assert first < second
    assert not any("red" in name for name in second)  # the domain that is held out
    for state in states:
        assert set(state.domains) == {"dark", "light"}
        assert state.asked.sum() == 3 * state.round
    assert [state.round for state in states[-3:]] == [0, 1, 2]
    assert all(np.isfinite(each.vectors[each.asked]).all() for each in states[-3:])
    assert not any(np.isfinite(each.vectors[~each.asked]).any() for each in states)
    assert states[-1].texts.shape == (3, 3)
    assert states[-1].features().shape[0] == len(states[0].labels) == run.summary.train_images
    other = tmp_path / "other.db"
    client.distill(options(**given, budget=3 + 8, cache=other, out="at-once"))
    assert _bought(other) == second


@pytest.mark.parametrize(
    ("picks", "said"),
    [
        (lambda state, n: state.left[: n + 1], "chose 4 images, 4 of them of"),
        (lambda *_: [0, 0], "chose 2 images, 1 of them"),
        (lambda *_: [-1], "chose 1 images, 0 of them"),
        (lambda state, _: state.nothing, r"raised AttributeError: .*test_guide.py, line"),
    ],
)
def test_what_an_acquisition_gives_is_checked_and_nothing_more_is_bought(
    options: Any, picks: Any, said: str
) -> None:
    wrong = type("Wrong", (), {"per_round": 3, "next": lambda _, state, n: picks(state, n)})()
    with pytest.raises(client.ClientError, match=said):
        client.distill(options(select=wrong, teacher=colours(), method="no-align", budget=7))
    assert _bought(Path("cache.db")) == set()


def test_uncertainty_asks_where_two_classes_are_nearest_by_what_was_bought(guide: dict[str, Any]) -> None:
    angles = np.linspace(0, np.pi / 2, 9, dtype=np.float32)  # of the teacher's answers, between two texts
    answers = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    asked = np.isin(np.arange(9), [0, 2, 6, 8])
    state = client.PoolState(
        domains=["all"] * 9,
        labels=np.zeros(9, np.int64),
        asked=asked,
        vectors=np.where(asked[:, None], answers, np.nan).astype(np.float32),
        texts=np.eye(2, dtype=np.float32),
        features=lambda: np.hstack([answers, answers**2]),
        order=range(9),
        round=1,
        random=np.random.default_rng(0),
    )
    unsure = acquisition_of("uncertainty")
    assert unsure is not None
    assert sorted(chosen(unsure, state)[:3]) == [3, 4, 5]
    assert chosen(unsure, state)[0] == 4
    fresh = replace(state, asked=np.zeros(9, bool), vectors=np.full((9, 2), np.nan, np.float32))
    assert chosen(unsure, fresh) == list(range(9))
    assert len(chosen(guide["LeastKnown"](), state)) == 5


def test_rounds_are_refused_where_all_is_bought_at_once(options: Any) -> None:
    with pytest.raises(ValueError, match=r"chosen by stratified, random, .*uncertainty"):
        options(select="telepathy")
    with pytest.raises(UsageError, match="with --budget its images are chosen by stratified or random"):
        client.compare(
            client.CompareOptions(data=Path("toy"), select="uncertainty", budget=9, out=Path("table"))
        )


def test_a_data_set_of_the_guide_is_read_as_files_and_told_from_another(
    guide: dict[str, Any], options: Any, tmp_path: Path
) -> None:
    drawn = guide["Drawn"]()
    given = {"method": "erm", "budget": None, "target_domain": "slate"}
    plan = client.plan(options(dataset=drawn, **given))
    assert (plan.classes, plan.source_domains) == (["dark", "light"], ["paper"])
    run = client.distill(options(dataset=drawn, **given))
    assert sum(run.summary.accuracy.images_by_domain.values()) == run.summary.holdout_images + 20
    files = sorted((tmp_path / "datasets").glob("*/*.png"))
    assert len(files) == 40
    before = [file.stat().st_mtime_ns for file in files]
    named = ((image, drawn.classes[label], domain) for image, label, domain in (drawn[n] for n in range(40)))
    client.distill(options(dataset=named, **given, out="again"))
    assert [file.stat().st_mtime_ns for file in files] == before
    images = {np.asarray(Image.open(file)).tobytes() for file in files}
    assert images == {drawn[n][0].tobytes() for n in range(40)}


def test_each_kind_of_image_and_label_of_a_data_set_is_the_same_image(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    kinds = (array, Image.fromarray(array), torch.from_numpy(array).permute(2, 0, 1))
    table = write_set([(each, "cat") for each in kinds], tmp_path / "sets")
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert len({row["path"] for row in rows}) == 1
    assert write_set([(rows[0]["path"], "cat")] * 3, tmp_path / "sets") == table
    assert write_set([(array, "dog")] * 3, tmp_path / "sets") != table


class _Broken(list[Any]):
    def __getitem__(self, position: Any) -> Any:
        raise OSError(f"no disk at {position}")


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ([(np.zeros((4, 4, 3)), "cat")], r"Image 1 of the data set is float64 of shape \(4, 4, 3\)"),
        ([(torch.zeros(4, 4, 3, dtype=torch.uint8), "cat")], None),
        ([(torch.zeros(1, 4, 4, dtype=torch.uint8), "cat")], r"uint8 of shape \(1, 4, 4\)"),
        ([(np.zeros((4, 4, 3), np.uint8), -1)], "number among `classes`, of which the set has 0"),
        ([np.zeros((4, 4, 3), np.uint8)], r"has to be \(image, label\)"),
        ([], "has no image"),
        (5, "not a int"),
        (_Broken([1]), r"asked for image 0, raised OSError: no disk at 0 \(test_guide.py"),
    ],
)
def test_what_is_no_data_set_is_refused_in_words(tmp_path: Path, dataset: Any, said: str | None) -> None:
    if said is None:
        assert write_set(dataset, tmp_path).exists()
        return
    with pytest.raises(client.ClientError, match=said):
        write_set(dataset, tmp_path)
