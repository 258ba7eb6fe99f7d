"""The output of a notebook's cell that shows how work goes on: lines, and below them a bar that moves.

It is one output, which is replaced as the work goes on; a saved notebook keeps its last state. It
needs nothing beside IPython, which every notebook has.
"""

import time
from typing import Any

from shared.text import in_html

# Seconds between two pictures of a bar, unless a line comes with it.
_EVERY = 0.1
# The lines that are shown; of earlier ones their number is.
_LINES = 40
_STYLE = "font: 13px/1.5 system-ui, sans-serif; overflow-wrap: anywhere"
_TRACK = "flex: 0 0 14em; height: .7em; border-radius: .35em; background: rgba(127, 127, 127, .3)"
_BAR = "height: 100%; border-radius: .35em; background: #4a86c5; width: {:.1f}%"
_ROW = (
    '<div style="display: flex; gap: .7em; align-items: center">{}'
    '<div style="{}"><div style="{}"></div></div>{}</div>'
)


class LiveOutput:
    """An output of whichever cell runs: a new cell gets a new one."""

    def __init__(self) -> None:
        self._cell: object = None
        self._handle: Any = None
        self._lines: list[str] = []
        self._bars: dict[str, tuple[float, str]] = {}
        self._shown = 0.0

    def add(self, line: str) -> None:
        """Show a line below the others."""
        self._begin()
        self._lines.append(line)
        self._show()

    def move(self, title: str, share: float, words: str) -> None:
        """Show a share of work, from 0 to 1, as a bar between its title and words."""
        self._begin()
        self._bars[title] = (share, words)
        if time.monotonic() - self._shown >= _EVERY:
            self._show()

    def end(self, title: str, line: str) -> None:
        """Replace a bar by a line."""
        self._bars.pop(title, None)
        self.add(line)

    def _begin(self) -> None:
        from IPython import get_ipython

        cell = getattr(get_ipython(), "execution_count", None)
        if cell != self._cell:
            self._cell, self._handle, self._lines, self._bars = cell, None, [], {}

    def _show(self) -> None:
        from IPython.display import display

        self._shown = time.monotonic()
        content = {"text/html": self._as_html(), "text/plain": "\n".join(self._shown_lines())}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(content, raw=True)

    def _shown_lines(self) -> list[str]:
        more = len(self._lines) - _LINES
        return [f"... {more} lines before", *self._lines[-_LINES:]] if more > 0 else self._lines

    def _as_html(self) -> str:
        rows = [f"<div>{in_html(line)}</div>" for line in self._shown_lines()]
        rows += [
            _ROW.format(f"<span>{in_html(title)}</span>", _TRACK, _BAR.format(100 * share), in_html(words))
            for title, (share, words) in self._bars.items()
        ]
        return f'<div style="{_STYLE}">{"".join(rows)}</div>'
