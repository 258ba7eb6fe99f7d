"""What a person sees: rates and time left, on a terminal and off it, and nothing that a name could style."""

from io import StringIO

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
    now = iter([0.0, 5.0, 5.0, 10.0, 10.0, 20.0])
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
    assert out.getvalue() == "[red]name[/red]?[2J\n"
