"""Names that others chose, at each face of both sides: none moves, hides or reorders anything beside it."""

import csv
import re
from collections.abc import Callable
from html import escape, unescape
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from jinja2 import DictLoader
from rich.console import Console

from client.cli.command import print_line
from client.cli.tables import print_table
from client.progress import Display
from client.results.charts import confusion_matrix
from client.results.comparison_table import _in_latex
from client.results.escaping import csv_line, from_csv, in_code, in_markdown
from client.results.rendering import environment as report_templates
from client.serving.rendering import render as serving_page
from client.vendors.wire import clean
from shared.billing import Invoice
from shared.pages.apart import SetApart
from shared.pages.environment import page_environment
from shared.text import in_html, isolated, visible
from vendor_service.cli.printing import print_rows
from vendor_service.console.rendering import environment as console_templates
from vendor_service.money.invoice_formats import as_html, as_text
from vendor_service.money.spreadsheets import csv_lines

# Each, and how it is read.
NAMES = {
    "plain": "plain",
    "caf\u00e9 \u6f22 \U0001f469\u200d\U0001f52c": "caf\u00e9 \u6f22 \U0001f469\u200d\U0001f52c",
    "\u202edesrever": r"\u202edesrever",
    "\u2067a\u2069\u200f": r"\u2067a\u2069\u200f",
    "\x1b]0;owned\x07\x1b[2J": r"\x1b]0;owned\x07\x1b[2J",
    "\x9b31m\x85\u2028": r"\x9b31m\x85\u2028",
    "zero\u200bwidth\ufeff\xad": r"zero\u200bwidth\ufeff\xad",
    "cut \ud800": r"cut \ud800",
    "\u05e9\u05dc\u05d5\u05dd 12": "\u05e9\u05dc\u05d5\u05dd 12",
    "\u0645\u0631\u062d\u0628\u0627\u202e": "\u0645\u0631\u062d\u0628\u0627\\u202e",
    r"a\x1b\new": r"a\x1b\new",
}
_CONTROL = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff]")


def _invoice(name: str) -> Invoice:
    return Invoice(
        account=name, month="2026-11", final=False, lines=[], refunds_micros=0, adjustments_micros=0,
        total_micros=0, top_ups_micros=0, first_seq=None, first_hash=None, last_seq=None, last_hash=None,
    )  # fmt: skip


def _noted(name: str) -> str:
    out = StringIO()
    Display(Console(file=out, width=1000)).note(name)
    return out.getvalue()


def _printed(show: Callable[[str], None]) -> Callable[[str], str]:
    def shown(name: str) -> str:
        with pytest.MonkeyPatch.context() as patch:
            out = StringIO()
            patch.setattr("sys.stdout", out)
            patch.setenv("COLUMNS", "500")
            show(name)
            return out.getvalue()

    return shown


TEXTS: dict[str, Callable[[str], str]] = {
    "the client's terminal": _printed(print_line),
    "its tables": _printed(lambda name: print_table(("name",), [(name,)])),
    "its notes": _noted,
    "a vendor's words": clean,
    "the vendor's terminal": _printed(lambda name: print_rows([{"name": name}])),
    "an invoice": lambda name: as_text(_invoice(name)),
    "a vendor's CSV": lambda name: "".join(csv_lines(["a"], [{"a": name}])),
    "LaTeX": lambda name: _in_latex(name).replace(r"\textbackslash{}", "\\").replace(r"\_", "_"),
    "Markdown": lambda name: re.sub(r"\\(?=[\\\[\]])", "", in_markdown(name)),
    "code in Markdown": in_code,
}


@pytest.mark.parametrize("face", TEXTS)
def test_control_characters_are_read_as_their_codes(face: str) -> None:
    for name, read in NAMES.items():
        shown = TEXTS[face](name)
        assert not _CONTROL.search(shown), name
        assert read in shown, name


def _page(template: str) -> Callable[[str], str]:
    made = page_environment(DictLoader({"a.html": template}))
    return lambda name: made.get_template("a.html").render(name=name)


HTML: dict[str, Callable[[str], str]] = {
    "the flow of a page": _page("<p>{% if 1 %}<b>{{ name }}</b> 12{% endif %}</p>"),
    "an expression": _page("<td title='x'>{{ 'none' if not name else name }}</td>"),
    "a macro": _page("{% macro cell(it) %}<td>{{ it }}</td>{% endmacro %}{{ cell(name) }}"),
    "an attribute that is shown": _page('<img src="a" alt="of {{ name }}"> 12'),
    "a title": _page("<title>{{ name }} 12</title>"),
    "a choice": _page('<select><option value="{{ 1 }}">{{ name }} 12</option></select>'),
    "a drawing": lambda name: str(confusion_matrix("x", [[1, 0], [0, 1]], [name[:15], "b"])),
    "an invoice": lambda name: as_html(_invoice(name)),
}


@pytest.mark.parametrize("place", HTML)
def test_in_html_a_name_is_also_set_apart_if_it_is_read_from_right_to_left(place: str) -> None:
    for name, read in NAMES.items():
        shown = HTML[place](name)
        plain = re.sub("</?bdi>", "", shown)
        assert read[:12] in unescape(plain), name
        assert not _CONTROL.search(re.sub("\u2068[^\u2068\u2069]*\u2069", "", shown)), name
        for found in _RIGHT_TO_LEFT.finditer(shown):
            before = shown[: found.start()]
            is_apart = before.count("<bdi>") - before.count("</bdi>")
            is_apart += before.count("\u2068") - before.count("\u2069")
            assert is_apart == 1, (name, shown)


def test_what_a_form_sends_back_stays_as_it_is() -> None:
    for name in NAMES:
        shown = _page('<a href="?q={{ name }}"><input type="hidden" name="a" value="{{ name }}">')(name)
        assert unescape(shown) == f'<a href="?q={name}"><input type="hidden" name="a" value="{name}">'


def test_every_template_of_a_page_sets_names_apart() -> None:
    """Those of the console, of reports and of served students come from one place."""
    made = {
        path.as_posix()
        for room in ("client", "vendor_service", "shared")
        for path in Path(room).rglob("*.py")
        if re.search(r"\bEnvironment\(", path.read_text())
    }
    assert made == {"shared/pages/environment.py"}
    for environment in (report_templates(), console_templates()):
        assert SetApart.identifier in environment.extensions
    student = SimpleNamespace(
        name="\u202ename", classes=["\u05d0", "b"], reject=None, image_size=8, method=None, fingerprint="f",
        limits=SimpleNamespace(max_inputs=1, max_request_bytes=1),
    )  # fmt: skip
    page = serving_page(
        "page.html",
        student=student,
        script="server.js",
        asks=False,
        expected=None,
        key_needed=False,
        unsure=None,
        samples=(),
        asking=None,
    )
    assert r"<h1>\u202ename</h1>" in page
    assert '<span class="tag"><bdi>\u05d0</bdi></span>' in page


def test_a_name_in_a_table_of_answers_is_read_back_as_it_was() -> None:
    for name in (*NAMES, "=1", "'=1", r"\x5cx41", "a\nb\tc", "-1.5"):
        (row,) = csv.reader(StringIO(csv_line([name])))
        assert not _CONTROL.search(row[0].replace("\t", "")), name
        assert from_csv(row[0]) == name


def test_the_three_ways_agree() -> None:
    assert visible("a\n\u202e") == r"a\n\u202e"
    assert isolated("a\n\u202e") == "a\n\\u202e"
    assert in_html("<\u05d0") == f"<bdi>{escape('<')}\u05d0</bdi>"
