"""The commands are what the options declare: what is typed, what tuition.toml says, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import SecretStr
from typer.core import TyperGroup

from client.cli.main import app, main
from client.cli.settings import commands_of
from client.options.base import Options
from client.options.students import AskOptions, PredictOptions, ServeOptions
from client.options.training import DistillOptions
from shared.typer_commands import options_of
from tests.client.folders import write_trusted


def _commands() -> dict[str, Any]:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return dict(commands_of(group))


class _PassedOn(Exception):
    """The options are passed on."""


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The options that commands passed on; the working directory is an empty one."""
    passed_on: list[Any] = []

    def note(*words: object, **_: object) -> None:
        passed_on.append(words[-1])
        raise _PassedOn

    for call in ("distillation.distill", "planning.plan", "generations.of_next", "serving.serve"):
        monkeypatch.setattr(f"client.api.{call}", note)
    monkeypatch.chdir(tmp_path)
    for name in ("DATA", "API_KEY", "API_KEY_FILE", "CACHE", "VENDOR_URL"):
        monkeypatch.delenv(f"TUITION_{name}", raising=False)
    return passed_on


def _pass_on(given: list[Any], *typed: str) -> Any:
    with pytest.raises(_PassedOn):
        main(list(typed))
    return given[-1]


def _refusal(capsys: pytest.CaptureFixture[str], *typed: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(list(typed))
    assert end.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_what_is_typed_is_explicit_and_nothing_else(
    given: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_trusted('max_spend = 7\nsteps = 3\nwait = false\nunlabelled = "pool"\n')
    monkeypatch.setenv("TUITION_CACHE", "environed.db")
    options = _pass_on(given, "distill", "--seed", "2", "--adapt", "a", "--adapt", "b", "--no-wait")
    assert (options.seed, options.adapt, options.steps, options.wait) == (2, ("a", "b"), 3, False)
    assert (options.cache, options.max_spend_micros) == (Path("environed.db"), 7)
    assert options.unlabelled == ("pool",)
    assert options.model_fields_set == {"seed", "adapt", "wait"}
    assert not options.agreed
    capped = _pass_on(given, "distill", "--max-spend", "5")
    assert (capped.max_spend_micros, capped.agreed) == (5, True)
    assert _pass_on(given, "distill", "--yes").agreed


def test_an_option_with_commas_may_come_again(given: list[Any]) -> None:
    options = _pass_on(given, "plan", "--price", "image=9", "--seed", "2", "--price=text=5")
    assert (options.price, options.seed) == (("image=9", "text=5"), 2)


@pytest.mark.parametrize(
    ("filed", "environed", "typed", "labelled"),
    [
        ('classes = "filed.txt"', "", (), "filed.txt"),
        ('classes = "filed.txt"', "", ("--data", "typed"), "typed"),
        ('classes = "filed.txt"', "", ("--classes", "typed.txt"), "typed.txt"),
        ('classes = "filed.txt"', "environed", (), "environed"),
        ("", "environed", ("--classes", "typed.txt"), "typed.txt"),
        ('data = "filed"\nclasses = "filed.txt"', "", (), "filed.txt"),
        ("", "environed", (), "environed"),
        ("", "", (), "data"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "distill"])
def test_labelled_images_and_class_names_are_taken_from_the_highest_place_that_has_either(
    command: str,
    filed: str,
    environed: str,
    typed: tuple[str, ...],
    labelled: str,
    given: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_trusted(filed)
    if environed:
        monkeypatch.setenv("TUITION_DATA", environed)
    assert str(_pass_on(given, command, *typed).labelled) == labelled


def test_a_key_that_is_given_comes_before_one_of_the_environment(
    given: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUITION_API_KEY", "tk_a_b")
    options = _pass_on(given, "plan")
    assert (options.api_key_file, options.api_key.get_secret_value()) == (None, "tk_a_b")
    assert "tk_a_b" not in repr(options)
    monkeypatch.setenv("TUITION_API_KEY_FILE", "environed.key")
    assert _pass_on(given, "plan").api_key_file == Path("environed.key")
    assert DistillOptions(api_key=SecretStr("tk_c_d")).api_key_file is None
    typed = _pass_on(given, "plan", "--api-key-file", "typed.key")
    assert (typed.api_key_file, typed.api_key) == (Path("typed.key"), None)


@pytest.mark.parametrize(
    ("filed", "typed", "asks"),
    [
        ("", (), None),
        ("ask_share = 0.1\nask_budget = 1000", (), None),
        ("", ("--ask-vendor", "http://v", "--ask-budget", "5"), ("http://v", 0.2, 5)),
        ("ask_share = 0.1\nask_budget = 1000", ("--ask-vendor", "http://v"), ("http://v", 0.1, 1000)),
        ('ask_vendor = "http://filed"\nask_budget = 3', ("--ask-share", "0.5"), ("http://filed", 0.5, 3)),
    ],
)
def test_a_vendor_is_asked_where_one_is_named(
    filed: str, typed: tuple[str, ...], asks: tuple[str, float, int] | None, given: list[Any]
) -> None:
    write_trusted(filed)
    ask = _pass_on(given, "serve", "run", *typed).ask
    assert (ask and (ask.vendor, ask.share, ask.budget)) == asks


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("distill --data a --classes b.txt", "Give one of --data and --classes."),
        ("predict run toy --ask-share 0.1", "--ask-share counts only with --ask-vendor."),
        ("serve run --ask-budget 5", "--ask-budget counts only with --ask-vendor."),
        ("serve run --ask-vendor http://v", "say with --ask-budget what it may pay for."),
        (f"predict run toy --ask-vendor http://v --ask-budget {10**12 + 1}", "--ask-budget"),
        (f"serve run --ask-vendor http://v --keep-at-most {10**7 + 1}", "--keep-at-most"),
        ("serve run --port 65536", "--port"),
        ("predict run toy --reject 0.6", "--reject"),
        ("export run --out x.onnx --allow-loss 101", "--allow-loss"),
        ("compare --methods erm,erm --out table", "--methods takes different names, comma-separated, not"),
        ("compare --methods , --out table", "--methods takes different names"),
        ("compare --methods erm --out table --methods erm", "--methods takes different names"),
        ("compare --out table --methods", "'--methods' requires an argument"),
        ("models", "There is no teacher 'telepathy'."),
    ],
)
def test_what_does_not_go_is_named_as_it_is_typed(
    typed: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    if typed == "models":
        monkeypatch.setenv("TUITION_TEACHER", "telepathy")
    assert said in _refusal(capsys, *typed.split())


def _floats() -> list[tuple[str, str]]:
    """Every option that takes a float, as (words of the command, option)."""
    return [
        (words, option.spelled)
        for words, command in _commands().items()
        for option in options_of(command)
        if option.kind is float
    ]


@pytest.mark.parametrize(("words", "option"), _floats())
def test_nan_is_no_number(words: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--ask-vendor", "http://v"] if words in ("predict", "serve") else []
    said = _refusal(capsys, *words.split(), option, "nan", "run", *asked, *["toy"] * (words == "predict"))
    assert option in said


@pytest.mark.parametrize(
    ("words", "model"),
    [("distill", DistillOptions), ("serve", ServeOptions), ("predict", PredictOptions)],
)
def test_every_option_of_python_is_on_the_command_line(words: str, model: type[Options]) -> None:
    typed = options_of(_commands()[words])
    assert set(model.model_fields) <= {option.path[0] for option in typed}
    if "ask" in model.model_fields:
        assert set(AskOptions.model_fields) - {option.path[-1] for option in typed} <= {"yes"}


def test_every_option_says_what_it_means() -> None:
    models = [Options]
    for model in models:
        models += model.__subclasses__()
        assert all(info.description for info in model.model_fields.values()), model
    assert "port: The port; 0 takes a free one." in (ServeOptions.__doc__ or "")
