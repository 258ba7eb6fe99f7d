"""Progress while a command works: bars on a terminal, one output in a notebook, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from client.live_output import LiveOutput
from shared.text import visible

# A line this often, in seconds, where there is no terminal to draw a bar on.
_LINE_EVERY = 5.0
# Of files that are skipped, so many are named; the others are counted.
_NAMED = 5


class ProgressListener(Protocol):
    """A listener to the progress of work; `Display` is one, and a program may pass its own."""

    def note(self, text: str) -> None:
        """Hear one thing that a person should know."""

    def track(self, title: str, total: int) -> AbstractContextManager[Callable[[int, str], None]]:
        """Hear of work in `total` steps, which begins when the context is entered and ends with it.

        What is entered gives a function, which is called with the number of steps done so far and a few
        words beside it, by one thread at a time and not always the same one.
        """


class Display:
    """Notes and progress, shown on standard error or in a notebook."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        in_notebook = self._console.is_jupyter and not self._console.quiet
        self._live = LiveOutput() if in_notebook else None
        self._said: set[str] = set()

    @classmethod
    def of_nobody(cls) -> Self:
        """One that shows nothing."""
        return cls(Console(quiet=True))

    @classmethod
    def of(cls, listener: ProgressListener | None) -> "Display":
        """The display that tells a listener everything; for `None`, one that shows nothing."""
        if listener is None:
            return cls.of_nobody()
        return listener if isinstance(listener, Display) else _Relay(listener)

    def note(self, text: str) -> None:
        """Say one thing; text from outside cannot style or move anything."""
        if self._live is not None:
            self._live.add(text)
        else:
            self._console.print(Text(visible(text)), soft_wrap=True)

    def note_once(self, text: str, *, about: str = "") -> None:
        """Say one thing, unless it or something `about` the same was said before, as of another run."""
        key = about or text
        if key not in self._said:
            self._said.add(key)
            self.note(text)

    def note_skipped(self, reasons: Mapping[str, str], *, listed_in: str) -> None:
        """Say of the first five files why they are skipped, and how many more `listed_in` lists."""
        for name, reason in list(reasons.items())[:_NAMED]:
            self.note_once(f"Skipped {name}: {reason}")
        if len(reasons) > _NAMED:
            more = f"... and {len(reasons) - _NAMED} more"
            self.note_once(f"{more}; {listed_in} lists them.", about=f"{more} than {next(iter(reasons))}")

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """Show progress; the value takes the number done so far and a few words beside it."""
        if total == 0:
            yield lambda _done, _words: None
            return
        if self._console.is_terminal:
            with self._bar(title, total) as advance:
                yield advance
        else:
            with self._lines(title, total) as advance:
                yield advance

    @contextmanager
    def _bar(self, title: str, total: int) -> Iterator[Callable[[int, str], None]]:
        columns = (
            TextColumn("{task.description:<16}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[words]}", markup=False),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(visible(title), total=total, words="")
            yield lambda done, words: progress.update(task, completed=done, words=visible(words))

    @contextmanager
    def _lines(self, title: str, total: int) -> Iterator[Callable[[int, str], None]]:
        started = printed = time.monotonic()
        last = (0, "")

        def advance(done: int, words: str) -> None:
            nonlocal printed, last
            last = (done, words)
            now = time.monotonic()
            if self._live is not None:
                self._live.move(title, done / total, _line("", done, words, now - started, total=total))
            elif now - printed >= _LINE_EVERY:
                printed = now
                self.note(_line(title, done, words, printed - started, total=total))

        try:
            yield advance
        finally:  # also where it stops early: what was done, and paid, is said last
            line = f"{_line(title, *last, total=total)} in {time.monotonic() - started:.1f} s"
            if self._live is not None:
                self._live.end(title, line)
            else:
                self.note(line)


class _Relay(Display):
    """Tells a listener, and shows nothing itself."""

    def __init__(self, listener: ProgressListener) -> None:
        super().__init__(Console(quiet=True))
        self._listener = listener

    def note(self, text: str) -> None:
        """Pass it on."""
        self._listener.note(text)

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """Pass it on; work in no steps is not mentioned."""
        if total == 0:
            yield lambda _done, _words: None
            return
        with self._listener.track(title, total) as advance:
            yield advance


class _RateColumn(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "")


def _line(title: str, done: int, words: str, seconds: float = 0, *, total: int) -> str:
    """One line of progress; with the rate and the time that is left, where `seconds` have passed."""
    parts = [f"{title}: {done}/{total}" if title else f"{done}/{total}"]
    if words:
        parts.append(words)
    if seconds and done:
        parts.append(f"{done / seconds:,.0f}/s, {(total - done) * seconds / done:.0f} s left")
    return ", ".join(parts)
