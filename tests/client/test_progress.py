"""What a person sees: rates and time left, on a terminal and off it, and nothing that a name could style."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from client import progress as display_module
from client.progress import Display


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display_module, "_LINE_EVERY", 0.0)


def _watch(*, terminal: bool) -> str:
    out = StringIO()
    display = Display(Console(file=out, force_terminal=terminal, width=160, highlight=False))
    with display.track("Buying", 100) as advance:
        advance(25, "500 micros")
        advance(100, "2000 micros, 1 refused")
    return out.getvalue()


@pytest.mark.usefixtures("hurry")
def test_lines_say_how_fast_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 5.0, 10.0, 20.0])
    monkeypatch.setattr("client.progress.time.monotonic", lambda: next(now))
    lines = _watch(terminal=False).splitlines()
    assert lines == [
        "Buying: 25/100, 500 micros, 5/s, 15 s left",
        "Buying: 100/100, 2000 micros, 1 refused, 10/s, 0 s left",
        "Buying: 100/100, 2000 micros, 1 refused in 20.0 s",
    ]


def test_what_was_done_is_said_where_it_stops_early() -> None:
    out = StringIO()
    display = Display(Console(file=out, force_terminal=False, width=160, highlight=False))

    def stop() -> None:
        with display.track("Buying", 100) as advance:
            advance(25, "500 micros")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert out.getvalue().startswith("Buying: 25/100, 500 micros in ")


def test_a_bar_shows_the_same() -> None:
    shown = _watch(terminal=True)
    assert "100/100" in shown
    assert "/s" in shown
    assert "2000 micros, 1 refused" in shown


def test_names_cannot_style_what_is_shown() -> None:
    out = StringIO()
    Display(Console(file=out, force_terminal=False)).note("[red]name[/red]\x1b[2J")
    assert out.getvalue() == "[red]name[/red]\\x1b[2J\n"


@pytest.mark.parametrize("name", ["{3F25}", "set{1}", "}x", "photos [old]", "x[/y]", ":cat:", "a\x1b[2Jb"])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_name_is_shown_as_it_is(name: str, terminal: bool) -> None:
    out = StringIO()
    display = Display(Console(file=out, force_terminal=terminal, no_color=True, width=160, highlight=False))
    with display.track(f"Reading {name}", 2) as advance:
        advance(2, f"{name} is read")
    display.note(f"Skipped {name}")
    shown = name.replace("\x1b", r"\x1b")
    for words in (f"Reading {shown}", f"{shown} is read", f"Skipped {shown}"):
        assert words in out.getvalue()


class _Listener:
    def __init__(self) -> None:
        self.heard: list[object] = []

    def note(self, text: str) -> None:
        self.heard.append(text)

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Callable[[int, str], None]]:
        yield lambda done, words: self.heard.append((title, total, done, words))
        self.heard.append("end")


def test_what_runs_have_in_common_is_said_once() -> None:
    said = StringIO()
    display = Display(Console(file=said))
    for run in ("first", "second"):
        display.note("Run.")
        display.note_once("The folder is small.")
        display.note_once(f"2 files left out; {run} lists them.", about="2 files left out")
        display.note_skipped({f"{n}.png": "empty file" for n in range(7)}, listed_in=run)
    lines = said.getvalue().splitlines()
    assert (lines.count("Run."), lines.count("The folder is small.")) == (2, 1)
    assert [line for line in lines if "lists them" in line] == [
        "2 files left out; first lists them.", "... and 2 more; first lists them.",
    ]  # fmt: skip
    assert lines.count("Skipped 0.png: empty file") == 1


def test_a_listener_hears_all_of_it_and_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    listener = _Listener()
    display = Display.of(listener)
    display.note("Buying begins.")
    with display.track("Buying", 2) as advance:
        advance(1, "20 micros")
    with display.track("Reading", 0) as advance:
        advance(0, "")
    display.note_skipped({"a.png": "empty file"}, listed_in="plan.json")
    assert listener.heard == [
        "Buying begins.",
        ("Buying", 2, 1, "20 micros"),
        "end",
        "Skipped a.png: empty file",
    ]
    with Display.of(None).track("Buying", 2) as advance:
        advance(1, "20 micros")
    Display.of(None).note("Nobody hears this.")
    assert capsys.readouterr() == ("", "")
    terminal = Display()
    assert Display.of(terminal) is terminal


class _Shown:
    """A cell's output, as IPython's display makes one, and each state of it."""

    def __init__(self) -> None:
        self.states: list[str] = []
        self.outputs = 0

    def display(self, content: dict[str, str], **_: object) -> "_Shown":
        self.outputs += 1
        self.update(content)
        return self

    def update(self, content: dict[str, str], **_: object) -> None:
        self.states.append(content["text/html"])


def test_in_a_notebook_it_is_one_output_of_each_cell_with_a_bar_that_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown, cell = _Shown(), SimpleNamespace(execution_count=1)
    monkeypatch.setattr("IPython.display.display", shown.display)
    monkeypatch.setattr("IPython.get_ipython", lambda: cell)
    monkeypatch.setattr("client.live_output._EVERY", 0.0)
    display = Display(Console(force_jupyter=True))
    display.note("<b>name</b>")
    with display.track("Buying", 4) as advance:
        advance(1, "20 micros")
        advance(4, "80 micros")
    assert shown.outputs == 1
    assert ["width: 25.0%" in state for state in shown.states] == [False, True, False, False]
    assert "Buying: 4/4, 80 micros in " in shown.states[-1]
    assert "width" not in shown.states[-1]  # a line is left of the bar
    assert "&lt;b&gt;name" in shown.states[-1]
    cell.execution_count = 2
    display.note("another cell")
    assert shown.outputs == 2
    assert "Buying" not in shown.states[-1]
