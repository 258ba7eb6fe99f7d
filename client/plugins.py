"""What users plug in, by name: methods, students, transforms, acquisitions, teachers.

A name stands for

- what this process has registered under it;
- what an installed package offers as an entry point of the kind's group;
- `python:MODULE:NAME`: what a module of the user's has under this name. The working directory is searched
  behind all that is installed.

Nothing is imported before it is asked for, and nothing because a file of somebody else's names it.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from traceback import extract_tb
from typing import Any

from client.errors import ClientError, UsageError

PYTHON = "python"
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,79}", re.ASCII)


class Plugins:
    """One kind of what can be plugged in.

    Attributes:
        kind: a noun for messages.
        option: how the command line takes a name.
        group: the group of entry points.
    """

    def __init__(self, kind: str, *, option: str, group: str) -> None:
        self.kind = kind
        self.option = option
        self.group = group
        self._registered: dict[str, Any] = {}

    def register(self, name: str, thing: Any) -> str:  # noqa: ANN401 (anybody's)
        """Have a name stand for something in this process; a later one replaces it.

        Raises:
            UsageError: it is no name.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(
            name.removeprefix(f"{PYTHON}:").replace(":", ".")
        ):
            raise UsageError(
                f"A {self.kind} cannot be called {name!r}: a name has letters, digits, '.', '_' and '-'."
            )
        self._registered[name] = thing
        return name

    def names(self) -> tuple[str, ...]:
        """All names that are registered or offered; nothing is imported."""
        return tuple(sorted(self._registered.keys() | entry_points(group=self.group).names))

    def knows(self, name: str) -> bool:
        """Whether the name may stand for something: it is registered, offered, or names a module."""
        return name.startswith(f"{PYTHON}:") or name in self._registered or self._entry(name) is not None

    def installed(self, name: str) -> bool:
        """Whether it is registered or offered, so that a file may name it."""
        return name in self._registered or self._entry(name) is not None

    def package_of(self, name: str) -> str:
        """The package that offers what the name stands for; empty where none does."""
        entry = None if name in self._registered else self._entry(name)
        return "" if entry is None else str(entry.module).partition(".")[0]

    def load(self, name: str) -> Any:  # noqa: ANN401 (anybody's)
        """What the name stands for.

        Raises:
            UsageError: it stands for nothing, or that cannot be loaded.
        """
        if name in self._registered:
            return self._registered[name]
        entry = self._entry(name)
        if entry is None and not name.startswith(f"{PYTHON}:"):
            close = get_close_matches(name, self.names(), n=1)
            raise UsageError(
                f"There is no {self.kind} {name!r}{f' (is {close[0]} meant?)' if close else ''}."
            )
        try:
            return self._of_module(name) if entry is None else entry.load()
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                f"{self.option} {name} cannot be loaded: {type(error).__name__}: {error}."
            ) from error

    def _entry(self, name: str) -> Any:  # noqa: ANN401 (importlib's)
        return next(iter(entry_points(group=self.group, name=name)), None)

    def _of_module(self, name: str) -> Any:  # noqa: ANN401 (anybody's)
        module, _, attribute = name.partition(":")[2].partition(":")
        if not module or not attribute:
            raise UsageError(
                f"{self.option} {name}: write {PYTHON}:MODULE:NAME, as in {PYTHON}:my_module:my_{self.kind}."
            )
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # behind what is installed, which it cannot replace
        return getattr(import_module(module), attribute)


@contextmanager
def of_others(what: str) -> Iterator[None]:
    """Run what somebody plugged in.

    Raises:
        ClientError: it raised; the message says what, and where.
    """
    try:
        yield
    except ClientError:
        raise
    except Exception as error:
        frames = extract_tb(error.__traceback__)
        place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if len(frames) > 1 else ""
        raise ClientError(
            f"{what} raised {type(error).__name__}: {error}{place}. What was bought is kept."
        ) from error


def named(thing: Any, plugins: Plugins) -> str:  # noqa: ANN401 (anybody's)
    """A name for what is given in Python: the text itself, or its own name, under which it is registered.

    Raises:
        UsageError: it has none, as a lambda has none.
    """
    if isinstance(thing, str):
        return thing
    told = getattr(thing, "name", None)
    if isinstance(told, str):
        return plugins.register(told, thing)
    kind = thing if hasattr(thing, "__name__") else type(thing)
    if not _NAME.fullmatch(kind.__name__):
        raise UsageError(
            f"A {plugins.kind} needs a name, and {kind.__qualname__} of {kind.__module__} has none: define "
            "it "
            "with `def` or `class`, or give it an attribute `name`."
        )
    return plugins.register(f"{kind.__module__}.{kind.__name__}", thing)
