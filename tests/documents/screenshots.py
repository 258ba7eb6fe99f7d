"""Makes the pictures of the README: the end of `make demo` in a terminal, and the report of its student.

    make screenshots

It runs the demo from the beginning (seven minutes of two cores), in a terminal of its own. What that shows in
the end is `docs/images/demo.svg`; the beginning of the report in Chromium, which has to be installed, is
`docs/images/report.png`.
"""

import io
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

from examples.demo import HOME, ROOT

IMAGES = ROOT / "docs" / "images"
COLUMNS = 100
REPORT_SIZE = (1280, 1180)  # pixels
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# The demo's last step but the table, from which on the picture shows the terminal.
_FIRST_LINE = "What the vendor says was used"
# A window with text in any monospaced font: rich's own asks a server for one.
_WINDOW = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; \
font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def run_in_terminal(command: list[str], columns: int = COLUMNS) -> str:
    """Run a command in a pseudo-terminal, show what it prints, and return it, escape sequences and all.

    Raises:
        subprocess.CalledProcessError: the command ended with another code than 0.
    """
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (50, columns))
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=its, stderr=its, env={**os.environ, "TERM": "xterm-256color"}
    )
    os.close(its)
    printed = bytearray()
    while chunk := _read(ours):
        printed += chunk
        sys.stdout.buffer.write(chunk)
        sys.stdout.flush()
    os.close(ours)
    if process.wait() != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return printed.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    """The next bytes from a pseudo-terminal; none at its end, which Linux calls an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def ending(printed: str, first_line: str = _FIRST_LINE) -> str:
    """The lines of a terminal from the last one on that has these words."""
    lines = printed.rstrip().split("\n")
    start = max(number for number, line in enumerate(lines) if first_line in line)
    return "\n".join(lines[start:])


def draw_terminal(printed: str, title: str, columns: int = COLUMNS) -> str:
    """An SVG of a terminal that shows this text, with its colours."""
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
    for line in printed.split("\n"):
        console.print(Text.from_ansi(line), soft_wrap=True)
    return console.export_svg(title=title, code_format=_WINDOW, unique_id="demo")


def photograph(page: Path, picture: Path, size: tuple[int, int] = REPORT_SIZE) -> None:
    """Save a picture of the beginning of an HTML file, of this width and height, in 256 colours.

    Raises:
        FileNotFoundError: there is no Chromium.
    """
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        raise FileNotFoundError(f"Taking a picture of a page needs one of {', '.join(_BROWSERS)}.")
    width, height = size
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "page.png"
        command = [
            browser,
            "--headless",
            "--disable-gpu",
            "--disable-background-networking",
            "--hide-scrollbars",
        ]
        command += ["--no-sandbox"] if os.geteuid() == 0 else []  # root has no sandbox
        command += [f"--user-data-dir={folder}/profile", f"--window-size={width},{height + 200}"]
        subprocess.run([*command, f"--screenshot={whole}", page.as_uri()], check=True, capture_output=True)
        with Image.open(whole) as image:
            beginning = image.convert("RGB").crop((0, 0, width, height))
        beginning.quantize(256, dither=Image.Dither.NONE).save(picture, optimize=True)


def main() -> None:
    """Run the demo anew, and write both pictures."""
    shutil.rmtree(HOME, ignore_errors=True)
    printed = run_in_terminal([sys.executable, str(ROOT / "examples" / "demo.py")])
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / "demo.svg").write_text(draw_terminal(ending(printed), "make demo"), encoding="utf-8")
    photograph(HOME / "vl2v-adip-1" / "report.html", IMAGES / "report.png")


if __name__ == "__main__":
    main()
