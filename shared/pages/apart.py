"""Jinja templates of pages whose texts others wrote: none hides, moves or reorders what stands around it."""

import re
from collections.abc import Iterator
from typing import Any

from jinja2 import Environment
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from markupsafe import Markup

from shared.text import BLANK, isolated, runs_left, visible

# Within an element that takes no others: its head and what was written in it.
_PLAIN = re.compile(r"<(title|option|textarea)\b[^>]*>[^<]*\Z")
_ATTRIBUTE = re.compile(r"""([\w-]+)=["'][^"']*\Z""")
# Attributes that people are shown. Others are sent back, or are addresses.
_SHOWN = frozenset({"alt", "aria-label", "placeholder", "title"})


class SetApart(Extension):
    """Passes every text that a page of HTML shows through a filter, by where it stands.

    In the flow of a page that is as in `shared.text.in_html`; in an attribute that is shown and in a title,
    `isolated`. Other attributes, what is markup already, and templates that are no HTML stay as they are.
    """

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.filters |= {"in_html": _in_html, "isolated": _isolated}

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        """Put the filter behind what is written out, in parentheses."""
        of_page = (stream.name or "").endswith(".html")
        before, chosen = "", None
        for token in stream:
            if token.type == "data":
                before = _tail(before + token.value)
            if token.type == "variable_end" and chosen:
                yield Token(token.lineno, "rparen", ")")
                yield Token(token.lineno, "pipe", "|")
                yield Token(token.lineno, "name", chosen)
            yield token
            if token.type == "variable_begin":
                chosen = _filter_at(before) if of_page else None
                if chosen:
                    yield Token(token.lineno, "lparen", "(")


def _tail(written: str) -> str:
    """What tells where the end stands: from the last tag on."""
    return written[max(0, written.rfind("<")) :]


def _filter_at(before: str) -> str | None:
    if before.startswith("<") and ">" not in before:
        attribute = _ATTRIBUTE.search(before)
        return "isolated" if attribute and attribute[1] in _SHOWN else None
    return "isolated" if _PLAIN.search(before) else "in_html"


def _in_html(value: Any) -> Any:  # noqa: ANN401 (whatever a template writes out)
    if not _is_text(value):
        return value
    shown = visible(value, keep=BLANK)
    return Markup("<bdi>{}</bdi>").format(shown) if runs_left(shown) else shown


def _isolated(value: Any) -> Any:  # noqa: ANN401 (whatever a template writes out)
    return isolated(value) if _is_text(value) else value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not isinstance(value, Markup)
