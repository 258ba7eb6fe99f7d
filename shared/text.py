r"""Text that others wrote, as people are shown it: it hides, moves and reorders nothing around it.

Control characters are written as their codes (`\x1b`, `\u202e`). Letters that are read from right to left are
kept, and set apart from what stands beside them, which they would draw into their direction.
"""

import re
import unicodedata
from html import escape

# C0, DEL and C1; line and paragraph separators; marks that change the direction of what is shown; characters
# without any width; the mark of byte order; and halves of surrogate pairs, which no encoding can write.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
# What separates words and lines, and moves nothing on a page or in a spreadsheet.
BLANK = "\t\r\n"
# Unicode's FIRST STRONG ISOLATE and POP DIRECTIONAL ISOLATE.
_APART, _BACK = "\u2068", "\u2069"
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})


def visible(text: str, *, keep: str = "") -> str:
    r"""The text with control characters, but those to keep, as their codes: `\x1b`, `\n`, `\u202e`."""
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else _code(found[0]), text)


def isolated(text: str) -> str:
    """The visible text, set apart if it is read from right to left: for where HTML takes no elements."""
    shown = visible(text, keep=BLANK)
    return f"{_APART}{shown}{_BACK}" if runs_left(shown) else shown


def in_html(text: str) -> str:
    """The visible text as HTML, in an element of its own if it is read from right to left."""
    shown = visible(text, keep=BLANK)
    return f"<bdi>{escape(shown)}</bdi>" if runs_left(shown) else escape(shown)


def runs_left(text: str) -> bool:
    """Whether some of a text is read from right to left."""
    return not text.isascii() and any(unicodedata.bidirectional(each) in _RIGHT_TO_LEFT for each in text)


def _code(control: str) -> str:
    return control.encode("unicode_escape", "surrogatepass").decode()
