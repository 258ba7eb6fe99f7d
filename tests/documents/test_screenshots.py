"""The pictures of the README are drawn from what a terminal showed."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.documents.screenshots import draw_terminal, ending, run_in_terminal


def test_a_program_sees_a_terminal_of_that_width() -> None:
    script = "import os, sys; print(sys.stdout.isatty(), os.get_terminal_size().columns)"
    assert run_in_terminal([sys.executable, "-c", script], columns=70) == "True 70\n"
    with pytest.raises(subprocess.CalledProcessError):
        run_in_terminal([sys.executable, "-c", "raise SystemExit(3)"])


def test_the_end_of_a_terminal_is_drawn_with_its_colours(tmp_path: Path) -> None:
    printed = "begin\n\x1b[92m──\x1b[0m the end\nfirst\n\x1b[92m──\x1b[0m the end\n\x1b[31mred\x1b[0m <b>\n"
    shown = ending(printed, "the end")
    assert "first" not in shown
    drawing = draw_terminal(shown, "make demo", columns=40)
    (tmp_path / "demo.svg").write_text(drawing, encoding="utf-8")
    root = ET.parse(tmp_path / "demo.svg").getroot()
    texts = {
        "".join(each.itertext()).replace("\xa0", " ").strip()
        for each in root.iter()
        if each.tag.endswith("text")
    }
    assert {"──", "the end", "red", "<b>", "make demo"} <= texts
    styled = [each.get("class") for each in root.iter() if (each.text or "").startswith(("red", "──"))]
    assert len({*styled}) == 2
