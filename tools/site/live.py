"""The student of `make demo` on the home page of the documents, where it answers in the reader's browser.

It is there if the demo was run. Its pictures to try are of the style that it has not seen.
"""

from pathlib import Path

from client.api.exports import export

RUN = Path(__file__).resolve().parents[2] / ".demo" / "vl2v-adip-1"
FOLDER = "student"  # of the site
_SAMPLES = 12
_BEFORE = "\n## "  # the first heading below the page's introduction
_FRAME = f"""
## A student, live

This is the student of `make demo`. It runs in this page, and what you drop stays on your device. A page that
is opened as a file may load nothing: `python3 -m http.server` in the site's folder shows it.

<iframe class="student" src="{FOLDER}/index.html" title="A student that answers in the browser"></iframe>
"""


def shown_in(markdown: str) -> str:
    """A page with the student before its second heading."""
    before, heading, after = markdown.partition(_BEFORE)
    return before + "\n" + _FRAME + heading + after


def add_to(site: Path) -> None:
    """Put the student into the built site.

    Raises:
        ClientError: the demo's run is not finished.
    """
    export(RUN, site / FOLDER, kind="web", samples=_SAMPLES)
