"""The Python API against the real vendor: it does what commands do, in silence and by the same rules."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import client
from client import CompareOptions, DistillOptions, EmbedOptions
from client.errors import BudgetExhausted, ClientError, UsageError
from tests.client.toy import CLASSES, make_folder
from tests.end_to_end.command import Command
from tests.support.vendor_process import VendorProcess

DOCS = Path(__file__).parents[2] / "docs" / "python.md"
# As `TINY` of the commands.
BRIEFLY: dict[str, Any] = {
    "student": "test_efficientnet",
    "student_weights": "backbone.safetensors",
    "steps": 2,
    "image_size": 32,
}


@pytest.fixture
def command(vendor_process: VendorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command line beside the API, in the same folder and with the same vendor, key and cache."""
    make_folder(tmp_path / "toy", images=6)
    command = Command(tmp_path, vendor_process.url, vendor_process.create_key(quota=1000))
    for name, value in command.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return command


def _options(**given: Any) -> DistillOptions:
    few: dict[str, Any] = {"data": Path("toy"), "target_domain": "red"}
    return DistillOptions(**{**BRIEFLY, **few, "out": Path("run"), "budget": 500, **given})


class Heard:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.done: dict[str, tuple[int, int]] = {}

    def note(self, text: str) -> None:
        self.notes.append(text)

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Callable[[int, str], None]]:
        def advance(done: int, _: str) -> None:
            self.done[title] = (done, total)

        yield advance


def test_a_run_from_plan_to_prediction(
    command: Command, vendor_process: VendorProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = client.plan(_options())
    assert plan.purchase is not None
    assert plan.purchase.to_buy == plan.train_images + len(CLASSES)
    assert plan.outlook is not None
    assert plan.outlook.quote is not None
    assert plan.gains is not None
    assert vendor_process.charges(command.api_key).entries == 0
    assert not Path("run").exists()

    run = client.distill(_options())
    charges = vendor_process.charges(command.api_key)
    assert run.path == Path("run")
    assert run.summary.queries_bought == charges.queries == plan.purchase.to_buy
    assert run.summary.cost_micros == charges.cost_micros == plan.purchase.cost_micros
    assert run.purchase is not None
    assert run.purchase.cost_micros == charges.cost_micros
    forecast = ("outlook", "gains", "training_seconds", "advice")
    assert run.plan == plan.model_copy(update=dict.fromkeys(forecast))  # which are not of a run
    for record, name in ((run.plan, "plan"), (run.purchase, "purchase"), (run.summary, "summary")):
        written = json.dumps(record.to_json(), indent=2) + "\n"
        assert written == Path(f"run/{name}.json").read_text()

    student = run.student("cpu")
    found = student.predict("toy/red/circle/00.png", top=2)
    assert capfd.readouterr() == ("", "")  # nothing is shown unless it is asked for
    (shown,) = json.loads(command("predict", "run", "toy/red/circle/00.png", "--top", "2", "--json").stdout)
    assert [shown] == found.rows()
    assert shown["classes"] == found.classes["toy/red/circle/00.png"]

    (red,) = client.evaluate(student, "toy", domains=["red"]).values()
    assert red.accuracy == pytest.approx(run.summary.accuracy.out_of_domain)
    written_to = Path(client.export(run.path, "student.onnx").out)
    by_onnx = client.load_student(written_to).predict([written_to.parent / "toy/red/circle/00.png"], top=2)
    assert list(by_onnx.classes.values()) == [pytest.approx(shown["classes"], abs=1e-4)]
    run.report.unlink()
    assert client.load_run("run").write_report().exists()

    heard = Heard()
    client.distill(_options(), progress=heard)  # the same options resume, and pay for nothing
    assert any("trained already" in note for note in heard.notes)
    assert vendor_process.charges(command.api_key) == charges


def test_the_plan_is_that_of_the_command_line(command: Command) -> None:
    words = "--data toy --target-domain red --steps 2 --image-size 32 --budget 500 --json"
    planned = json.loads(command("plan", *words.split()).stdout)
    again = client.plan(_options()).to_json()
    assert planned.pop("training_seconds") > 0 < again.pop("training_seconds")
    assert again == planned


def test_a_purchase_takes_a_budget_and_where_it_is_large_an_answer(
    command: Command, vendor_process: VendorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="how many queries may be paid for"):
        client.distill(_options(budget=None))
    planned = client.plan(_options()).purchase
    assert planned is not None
    monkeypatch.setattr("client.api.confirm.ASK_ABOVE_MICROS", 100)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a terminal was asked"))
    questions: list[str] = []

    def refuse(question: str) -> bool:
        questions.append(question)
        return False

    with pytest.raises(UsageError, match="Nothing was bought"):
        client.distill(_options())
    with pytest.raises(UsageError, match="Nothing was bought"):
        client.distill(_options(), confirm=refuse)
    with pytest.raises(UsageError, match="Nothing was bought"):
        client.embed(EmbedOptions(texts=tuple(map(str, range(9)))), confirm=refuse)
    assert [question.split(" (")[0] for question in questions] == [
        f"This costs {planned.cost_micros:,} micros",
        "This costs 180 micros",
    ]
    assert vendor_process.charges(command.api_key).entries == 0
    heard = Heard()
    client.distill(_options(budget=10), confirm=lambda _: True, progress=heard)
    assert vendor_process.charges(command.api_key).queries == 10
    assert (heard.done["Buying texts"], heard.done["Buying images"]) == ((3, 3), (7, 7))
    with pytest.raises(UsageError, match="left as it is"):
        client.distill(_options(budget=12), confirm=lambda question: "Replace" not in question)
    assert vendor_process.charges(command.api_key).queries == 10


def test_a_comparison_is_its_files(command: Command, vendor_process: VendorProcess) -> None:
    options = CompareOptions(
        data=Path("toy"), out=Path("table"), methods=("linear-probe", "text-only"), target_domains=("red",),
        seeds=1, **BRIEFLY,
    )  # fmt: skip
    planned = client.plan_comparison(options)
    quote = {"runs": 2, "cached": 0, "to_buy": 3, "cost_micros": 60}
    assert planned.to_json() == quote | {"unaffordable": 0, "enough_micros": None}
    assert not Path("table").exists()
    found = client.compare(options)
    assert found.path == Path("table")
    assert json.dumps(found.table.to_json(), indent=2) + "\n" == Path("table/table.json").read_text()
    assert found.text == Path("table/table.txt").read_text()
    assert [row.method for row in found.table.rows] == ["linear-probe", "text-only"]
    assert vendor_process.charges(command.api_key).queries == 3
    probe = client.load_run("table/runs/linear-probe-red-0")
    assert probe.purchase is None
    assert probe.summary.accuracy.out_of_domain == found.table.runs[0].out_of_domain


def test_embeddings_come_as_an_array_or_as_a_file(command: Command, vendor_process: VendorProcess) -> None:
    Path("bad.png").write_text("no image")
    inputs: dict[str, Any] = {"texts": ("a cat", "a dog"), "images": ("bad.png", Path("toy/red/circle"))}
    with pytest.raises(BudgetExhausted):
        client.embed(EmbedOptions(**inputs, budget=5))
    found = client.embed(EmbedOptions(**inputs, budget=8))
    assert vendor_process.charges(command.api_key).queries == 8
    assert (found.rows, found.embedded, found.queries_bought, found.out) == (9, 8, 3, None)
    assert list(found.skipped) == ["bad.png"]
    assert found.vectors is not None
    assert found.vectors.dtype == np.float32
    assert np.isnan(found.vectors[:, 0]).tolist() == [False, False, True] + 6 * [False]
    written = client.embed(EmbedOptions(**inputs, out=Path("out.npy"), budget=8))
    assert (written.out, written.rows, written.queries_bought, written.vectors) == ("out.npy", 9, 0, None)
    assert np.array_equal(np.load("out.npy"), found.vectors, equal_nan=True)


def test_what_is_no_run_is_named(command: Command) -> None:
    with pytest.raises(ClientError, match="toy is not a finished run"):
        client.load_run("toy")
    Path("run").mkdir()
    Path("run/config.json").write_text("{}")
    Path("run/summary.json").write_text('{"method": "erm"}')
    with pytest.raises(ClientError, match=r"summary\.json is not what this version of Tuition writes"):
        _ = client.load_run("run").summary
    with pytest.raises(ClientError, match=r"plan\.json does not exist"):
        _ = client.load_run("run").plan


def test_the_examples_in_the_documentation_work(
    command: Command, vendor_process: VendorProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("toy").rename("photos")
    Path("photos/red").rename("photos/winter")
    Image.new("RGB", (32, 32), "orange").save("some.jpg")
    examples = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    briefly = "".join(f"{name}={value!r}, " for name, value in BRIEFLY.items())
    assert len(examples) == 12
    assert len([line for line in examples[0].splitlines() if line and not line.startswith("import")]) == 5
    names: dict[str, Any] = {}
    for example in examples:  # a few steps of a tiny student on small images show that it works
        exec(re.sub(r"((?:Distill|Compare)Options\()", rf"\1{briefly}", example), names)
        said = capsys.readouterr().out.splitlines()
        if "client.usage" in example:
            billed = vendor_process.charges(command.api_key).cost_micros
            assert said == ["True", "['icon-clip']", str(billed), "[]"]
        if "faiss" in example:
            assert said[0].count("photos/") == 3
    assert names["run"].summary.target_domain == "winter"
    assert names["embeddings"].vectors.shape == (2, 256)
    assert Path("table/table.tex").exists()
    assert [row.method for row in names["rates"].table.rows] == ["rate 0.0003", "rate 0.001"]
    assert Path("winter.onnx").exists()
    assert any(line.startswith("Reading light: 18 of 18") for line in said)
