"""Compares what the programs offer with what was recorded, or records it anew.

python -m tests.surface            # what differs
python -m tests.surface --write    # record it
"""

import sys

from tests.surface.record import SURFACES, difference, write


def main() -> None:
    """Record with `--write`; otherwise print what differs, and end with 1 if something does."""
    if sys.argv[1:] == ["--write"]:
        print(f"Recorded: {', '.join(write()) or 'nothing has changed'}.")
        return
    found = "\n".join(filter(None, map(difference, SURFACES)))
    print(found or "The surface is as recorded.")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
