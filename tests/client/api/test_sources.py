"""Whatever takes images takes sources: from Python, on the command line, in tuition.toml."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
import webdataset
from PIL import Image

import client
from client.api.settling import run_config
from client.cli.main import main
from client.cli.settings import Settings
from client.cli.trusted import leads_outside
from client.results.predictions import read_predictions
from tests.client.folders import write_trusted
from tests.client.toy import CLASSES, make_folder, tiny_student
from tests.support.brief import briefly

__all__ = ["briefly"]  # a fixture

datasets.disable_progress_bars()


def _teacher(bought: list[int]) -> client.Teacher:
    def images(pictures: Sequence[Image.Image]) -> Any:
        bought.append(len(pictures))
        return [[1.0, *each.resize((1, 1)).getpixel((0, 0))] for each in pictures]  # type: ignore[misc]

    return client.Teacher.from_callable(
        images, lambda texts: [(len(text), 1, 2, 3) for text in texts], name="mine", fingerprint="1"
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the toy pictures as `datasets` saves them, and the red ones in tars."""
    monkeypatch.chdir(tmp_path)
    toy = make_folder(tmp_path / "toy", images=4)
    labelled = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=list(CLASSES)))
    parts = {}
    for domain in ("dark", "light", "red"):
        files = sorted(toy.glob(f"{domain}/*/*.png"))
        rows = {"image": list(map(str, files)), "label": [CLASSES.index(file.parts[-2]) for file in files]}
        parts[domain] = datasets.Dataset.from_dict(rows, features=labelled)
    datasets.DatasetDict(parts).save_to_disk("kept")
    with webdataset.ShardWriter("shard-%03d.tar", maxcount=3, verbose=0) as shards:
        for number, file in enumerate(sorted(toy.glob("red/*/*.png"))):
            shards.write({"__key__": f"{number:02}", "png": file.read_bytes(), "cls": number % 3})
    shutil.rmtree(toy)
    return tmp_path


def _options(folder: Path, bought: list[int], **more: Any) -> client.DistillOptions:
    given = {"data": "hf:kept", "target_domain": "red", "cache": "cache.db", "budget": 200, "image_size": 32}
    return client.DistillOptions(**{**given, "teacher": _teacher(bought), **tiny_student(folder), **more})


def test_a_student_learns_from_one_source_and_answers_about_another(folder: Path) -> None:
    bought: list[int] = []
    options = _options(folder, bought, out="run", steps=2, seed=1)
    run = client.distill(options)
    assert 0 < sum(bought) <= 24  # the source domains'
    named = {each.image for each in read_predictions(run.path / "answers.csv") if each.domain == "red"}
    assert named == {f"red/data-00000-of-00001.arrow/image/{row}" for row in range(12)}
    assert "data:image/jpeg" in (run.path / "report.html").read_text()
    asked = len(bought)
    client.distill(options)
    assert bought[asked:] == [1]  # which asks for the dimensions

    student = run.student()
    shards = "webdataset:shard-{000..003}.tar"
    answers = student.predict(shards, top=1)
    assert answers.classes.keys() == {f"shard-{n // 3:03}.tar/{n:02}.png" for n in range(12)}
    assert client.evaluate(student, "hf:kept", domains=["red"])["red"].images == 12
    with pytest.raises(client.ClientError, match="does not know"):
        client.evaluate(student, shards)

    rows: dict[str, Any] = {"target_domains": ["red"], "methods": ["erm"], "seeds": 1, "out": "table"}
    comparison = client.CompareOptions(data=options.data, cache=options.cache, **rows)
    assert client.plan_comparison(comparison).runs == 1

    to_embed: dict[str, Any] = {"images": [shards], "cache": "cache.db", "budget": 99}
    found = client.embed(client.EmbedOptions(teacher=_teacher(bought), **to_embed))
    assert found.queries_bought == 12  # none of the target was bought


def test_a_pool_in_tars_has_no_copy_of_the_target(folder: Path) -> None:
    options = _options(folder, [], unlabelled=["webdataset:shard-*.tar"], method="vl2v-adip")
    said = r"no image left to learn from. Left out: 12 a copy of an image of red"
    with pytest.raises(client.ClientError, match=said):
        client.plan(options)


def test_tuition_toml_and_the_command_line_name_sources(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> dict[str, Any]:
        with pytest.raises(SystemExit) as end:
            main([*words, "--json"])
        assert end.value.code == 0, capsys.readouterr().err
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    write_trusted('data = "hf:kept"\ntarget_domain = "red"\n')
    assert run("plan", "--method", "erm")["images_by_domain"] == {"dark": 12, "light": 12}
    checked = run("data", "check", "webdataset:shard-000.tar")
    assert checked["images"] == {folder.name: {"0": 1, "1": 1, "2": 1}}


def test_a_run_knows_its_sources_wherever_it_is_resumed(folder: Path) -> None:
    config = run_config(
        client.DistillOptions(
            data=Path("hf:kept"),
            unlabelled=("webdataset:s*.tar", "torchvision:CIFAR10:downloads"),
            method="vl2v-adip",
        )
    )
    assert config.data == Path(f"hf:{folder}/kept")
    assert config.unlabelled == (f"webdataset:{folder}/s*.tar", f"torchvision:CIFAR10:{folder}/downloads")
    assert config.usual_folder == Path("runs/kept-all-vl2v-adip-seed0")
    outside = {"data": "hf:../kept", "unlabelled": ["torchvision:CIFAR10:../downloads"], "adapt": "hf:kept"}
    assert leads_outside(Settings(folder / "tuition.toml", "", {}, outside)) == ["data", "unlabelled"]
