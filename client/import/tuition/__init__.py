"""Tuition's Python API: buy a teacher's embeddings once, and distil a small student from them.

`import tuition` offers the public names of `client`, the same objects; docs/python.md shows them at work, and
`help(tuition.distill)` and its like say what each takes.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from client import *  # noqa: F403
else:  # each name is imported when it is first asked for
    from client import __all__, __dir__, __getattr__  # noqa: F401
