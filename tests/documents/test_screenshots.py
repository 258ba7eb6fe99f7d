"""The pictures of the README are drawn from what a terminal showed."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image

from tests.documents.screenshots import IMAGES, REPORT_SIZE, draw_terminal, ending, run_in_terminal


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


def test_the_pictures_are_there_and_small() -> None:
    with Image.open(IMAGES / "report.png") as report:
        assert report.size == REPORT_SIZE
    assert (IMAGES / "report.png").stat().st_size < 300_000
    terminal = (IMAGES / "demo.svg").read_text(encoding="utf-8")
    assert len(terminal) < 100_000
    assert "http" not in terminal.replace("http://www.w3.org/2000/svg", "")  # it fetches no font
    assert all(words in terminal for words in ("vl2v-adip", "unseen", "report.html"))
