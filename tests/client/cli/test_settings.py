"""tuition.toml: what can stand there, what comes before it, and what is said of a wrong one."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
from typer.core import TyperGroup

from client.cli.main import app, main
from client.cli.settings import SETTINGS_FILE, commands_of, read_settings, settings_of
from tests.client.folders import write_trusted
from tests.client.toy import make_folder

PLAN = ["plan", "--method", "erm", "--json"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without anything of Tuition's in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUITION_DATA", raising=False)
    monkeypatch.delenv("TUITION_VENDOR_URL", raising=False)
    return tmp_path


def program() -> TyperGroup:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group


def filed() -> dict[str, Any]:
    """What the file gives to the commands."""
    settings = read_settings(program())
    assert settings is not None
    return settings.defaults


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(*PLAN, *arguments) == 0
    plan: dict[str, Any] = json.loads(capsys.readouterr().out)
    return plan


def refusal(capsys: pytest.CaptureFixture[str], text: str | bytes) -> str:
    """What is said of a file with this text, once it ends a command with 2."""
    SETTINGS_FILE.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert run("methods") == 2
    shown = capsys.readouterr()
    assert not shown.out
    return " ".join(shown.err.split())


def test_an_option_stands_at_the_top_for_all_commands_that_have_it() -> None:
    SETTINGS_FILE.write_text('data = "icons"\nbudget = 50000\nmax-spend = 7\nimage_size = 96\n')
    defaults = filed()
    for words in ("distill", "plan", "compare"):
        assert defaults[words] == {"data": "icons", "budget": 50000, "max_spend_micros": 7, "image_size": 96}
    assert defaults["evaluate"] == defaults["data"]["check"] == {"data": "icons"}
    assert defaults["embed"] == {"budget": 50000, "max_spend_micros": 7}
    assert defaults["methods"] == defaults["data"]["example"] == {}


def test_a_table_holds_the_options_of_its_command_and_comes_before_the_top() -> None:
    SETTINGS_FILE.write_text(
        'seed = 1\ncache = "all.db"\n[plan]\nseed = 2\n["cache create"]\nhalf = true\n[embed]\ntext = "a"\n'
        '[evaluate]\ndomain = ["a", "b"]\n'
    )
    defaults = filed()
    assert (defaults["distill"]["seed"], defaults["plan"]["seed"]) == (1, 2)
    assert defaults["cache"]["create"] == {"cache": "all.db", "half": True}
    assert defaults["cache"]["stats"] == {"cache": "all.db"}
    assert defaults["embed"]["texts"] == ["a"]
    assert defaults["evaluate"]["domains"] == ["a", "b"]


def test_the_command_line_comes_first_then_the_environment_then_the_file_then_the_default(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {name: 3 + number for number, name in enumerate(("data", "filed", "environed", "typed"))}
    for name, number in images.items():
        make_folder(folder / name, images=number)

    def used(*arguments: str) -> str:
        counted = planned(capsys, *arguments)["images_by_domain"]["dark"] // 3
        return next(name for name, number in images.items() if number == counted)

    write_trusted('target_domain = "red"\n')
    assert used() == "data"
    write_trusted('target_domain = "red"\ndata = "filed"\n')
    assert used() == "filed"
    monkeypatch.setenv("TUITION_DATA", "environed")
    assert used() == "environed"
    assert used("--data", "typed") == "typed"


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ("missing.txt", "missing.txt does not exist."),
        (".", ". is no .txt file."),
        ("t.csv", "t.csv is no"),
    ],
)
def test_class_names_are_of_a_text_file(
    folder: Path, capsys: pytest.CaptureFixture[str], classes: str, said: str
) -> None:
    Path("t.csv").write_text("path,label\n")
    assert run("plan", "--classes", classes) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert said in error
    assert "--classes takes a .txt file of class names, one per line." in error


def test_help_shows_what_the_file_sets(capsys: pytest.CaptureFixture[str]) -> None:
    SETTINGS_FILE.write_text('data = "mine"\n[plan]\nbudget = 12345\ntarget_domain = "winter"\n')
    assert run("plan", "--help") == 0
    shown = capsys.readouterr().out
    assert all(value in shown for value in ("12345", "mine", "winter"))
    assert run("distill", "--help") == 0
    assert "12345" not in capsys.readouterr().out


def test_flags_and_choices_of_the_file_hold(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folder(folder / "data", images=4)
    write_trusted('target_domain = "red"\njson = true\nmethod = "erm"\nrecipe = "paper"\n')
    assert run("plan") == 0
    assert json.loads(capsys.readouterr().out)["method"] == "erm"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("budgett = 5", "there is no option `budgett` (is `budget` meant?). Accepted: adapt,"),
        ("[plan]\nout = 'x'", "tuition.toml, [plan]: there is no option `out`"),
        ("[plann]\nseed = 1", "no command for the table [plann] (is `plan` meant?)"),
        ("[data]\ncheck = 1", "no command for the table [data]"),
        (
            "[cache]\nhalf = true",
            'no command for the table [cache]. A table is named for a command: ["cache stats"], ["cache v',
        ),
        (
            "[receipts]",
            '[receipts]. A table is named for a command: ["receipts verify"], ["receipts export"].',
        ),
        (
            "budget = '50000'",
            "`budget` of client distill is a whole number from 0 to 1,000,000,000,000, not ",
        ),
        ("budget = 5.5", "`budget` of client distill is a whole number"),
        ("seed = true", "`seed` of client distill is a whole number from 0"),
        ("[distill]\nseed = -1", "[distill]: `seed` is a whole number from 0 to 2,147,483,647, not -1."),
        ("json = 'yes'", "is true or false, not 'yes'."),
        ("json = 1", "is true or false, not 1."),
        ("data = 5", "is a path, not 5."),
        ("data = ''", "is a path, not ''."),
        ('data = "a\\u0000b"', "is a path, not "),
        ('vendor = "http://\\u001b[2Jv"', r"is a text, not 'http://\x1b[2Jv'."),
        ('student = "\\u202ebig"', r"is a text, not '\u202ebig'."),
        ("recipe = 'all'", 'is one of "default", "paper", "paper-domainnet", not \'all\'.'),
        ("[embed]\ntext = [1]", "[embed]: `text` is a text, or a list of such, not [1]."),
        ("[embed]\ntext = []", "`text` is a text, or a list of such, not []."),
        ("max-spend = 1\nmax_spend = 2", "`max_spend` is set twice."),
        ("out = 'x'", "put `out` into the table of a command, such as [distill]."),
        ("yes = true", "`yes` is given on the command line alone"),
        ("['cache prune']\nyes = true", "`yes` is given on the command line alone"),
        ("[plan]\nprobe = 200", "`probe` is given on the command line alone"),
        (
            "['cache prune']\nmodel_fingerprint = 'fp'",
            "`model_fingerprint` is given on the command line alone",
        ),
        ("api_key = 'tk_secret'", "a key is secret and does not belong here."),
        ("[distill]\napi-key = 'tk_secret'", "TUITION_API_KEY_FILE names"),
        ("api_key_file = '.vault'", "which file is sent as your API key is yours to say: on the command"),
        ("seed = \n", "tuition.toml is not TOML: Invalid value (at line 1, column 8)."),
        (b"data = '\xff'", "tuition.toml is not UTF-8 text."),
        ("#" * 20_000, "tuition.toml is larger than 16 KiB"),
        ("a = " + "[" * 10_000, "tuition.toml is not TOML"),
        ("a" + ".a" * 5_000 + " = 1", "tuition.toml is not TOML"),
        ("a = " + "1" * 10_000, "tuition.toml is not TOML"),
    ],
    ids=range(35),
)
def test_what_no_command_takes_is_named_with_the_file_and_the_key(
    text: str | bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = refusal(capsys, text)
    assert said in found
    assert "tuition.toml" in found
    assert "tk_secret" not in found


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("plan --method erm", "`budget` of client plan is a whole number from 0 to"),
        ("compare --methods erm --out table", "`budget` of client compare is a whole number from 1 to"),
        ("cache stats", "`budget` of client distill is a whole number from 0 to"),
    ],
)
def test_a_wrong_value_at_the_top_is_said_of_the_command_that_was_typed(
    command: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    SETTINGS_FILE.write_text("budget = -3\n")
    assert run(*command.split()) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_the_file_of_the_tutorial_is_one() -> None:
    text = (Path(__file__).parents[3] / "docs" / "tutorial.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    SETTINGS_FILE.write_text(example)
    defaults = filed()
    assert defaults["distill"]["max_spend_micros"] == 2_000_000
    assert "target_domain" not in defaults["distill"]  # a student that is to be shipped leaves none out
    assert defaults["models"] == {"vendor": "http://127.0.0.1:8000"}


def test_a_folder_of_that_name_is_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    SETTINGS_FILE.mkdir()
    assert run("methods") == 2
    assert "tuition.toml is not a file." in capsys.readouterr().err


def test_every_option_can_stand_there_but_for_what_is_typed() -> None:
    for words, command in commands_of(program()):
        keys = set(settings_of(command))
        options = {
            each.opts[0].removeprefix("--").replace("-", "_")
            for each in command.params
            if each.param_type_name == "option"
        }
        typed = {
            "cancel",
            "dry_run",
            "yes",
            "replace",
            "force",
            "damaged",
            "probe",
            "try_prompts",
            "study",
            "reconcile",
            "help",
            "api_key_file",
            "other_key_file",
        }
        typed |= {"model_fingerprint"} if words == "cache prune" else set()
        typed |= {"list", "revoke"} if words == "trust" else set()
        typed |= {"keys"} if words == "receipts verify" else set()
        assert options - typed <= keys, words
        assert keys.isdisjoint(typed), words


@pytest.mark.parametrize(
    ("command", "how"),
    [
        ("plan --target-domain red --method erm", "with --data"),
        ("compare --methods erm --out table", "with --data"),
        ("evaluate run", "with --data"),
        ("data check", "as DIR"),
    ],
)
def test_without_labelled_images_the_error_says_what_to_do(
    command: str, how: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for state in ("does not exist", "is empty"):
        assert run(*command.split()) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"the folder ./data {state}. Name yours {how}, with TUITION_DATA, or as `data`" in said
        assert "`client data example icons` unpacks" in said
        (folder / "data").mkdir(exist_ok=True)


def test_the_labelled_images_that_are_checked_are_those_of_a_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(folder / "mine", images=2)
    write_trusted('data = "mine"\n')
    assert run("data", "check") == 0
    assert "18 images of 3 classes in 3 domains." in capsys.readouterr().out
