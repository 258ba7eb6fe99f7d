"""Builds the site of the documents, and looks at the result.

    python -m tools.site FOLDER

It ends with 1 where MkDocs warns of anything, or where a built page has a fault (tools/site/check.py).
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.site import live
from tools.site.check import faults

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str]) -> int:
    """Build into a folder, and name the faults of its pages."""
    (folder,) = arguments
    site = Path(folder).resolve()
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    built = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    if built.returncode:
        print(built.stdout, built.stderr, sep="", file=sys.stderr)
        return 1
    if live.RUN.is_dir():
        live.add_to(site)
    found = faults(site)
    for fault in found:
        print(fault, file=sys.stderr)
    if found:
        return 1
    print(f"{len(list(site.glob('*.html')))} pages, none with a fault: open {site}/index.html.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
