"""What is plugged into a run, as a digest: its compiled code, that of what it uses, and its values.

It is the compiled code that counts, for that is what runs: comments and layout change nothing, and another
version of Python does. Of installed packages only names count, but for the package that offers what is
plugged in; and nothing counts of what a function imports when it is called. An attribute `fingerprint`, a
text, stands for all that its owner is.
"""

import hashlib
import random
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from client.errors import UsageError
from client.learning.backbones import STUDENTS
from client.learning.methods import METHOD_PLUGINS, METHODS, method_of
from client.learning.views import TRANSFORMS, transform_of
from client.runs.config import RunConfig

_FINGERPRINT = "fingerprint"
_OURS = ("client", "shared", "tuition")
_CONTRIBUTED = "client.contrib."
_STDLIB = Path(sysconfig.get_path("stdlib")).resolve()
_INSTALLED = {"site-packages", "dist-packages"}
_DRAWING = (random.Random, np.random.Generator, np.random.RandomState)
# What Python adds to a class, and what says nothing of what it does.
_PASSED_OVER = frozenset(
    f"__{name}__"
    for name in (
        *("dict", "weakref", "doc", "module", "annotations", "annotate", "annotations_cache"),
        *("annotate_func", "firstlineno", "static_attributes", "abstractmethods", "parameters"),
        *("orig_bases", "slotnames"),
    )
)


def code_of(config: RunConfig) -> str:
    """A SHA-256 (hex) of all that is plugged into a run; empty where nothing is.

    Raises:
        UsageError: it cannot be told of something whether it is what it was before.
    """
    plugged = list(_plugged(config))
    return _hash(fingerprint(*each) for each in plugged).hex() if plugged else ""


def _plugged(config: RunConfig) -> Iterator[tuple[Any, str, str]]:
    """What is plugged in, what it is in words, and the package that offers it."""
    method = method_of(config.method)
    if METHODS.get(method.name) is not method:
        thing = replace(method, name="", summary="")
        yield thing, f"The method {method.name}", METHOD_PLUGINS.package_of(method.name)
    if STUDENTS.knows(config.student):
        from client.learning.backbones.python_backbones import made

        network, weights = STUDENTS.load(config.student), dict(made(config.student).state_dict())
        yield (network, weights), f"The student {config.student}", STUDENTS.package_of(config.student)
    if config.transform is not None:
        words = f"The transform {config.transform}"
        yield transform_of(config.transform), words, TRANSFORMS.package_of(config.transform)


def fingerprint(thing: Any, kind: str, package: str = "") -> bytes:  # noqa: ANN401 (anybody's)
    """A digest of what makes something what it is.

    Args:
        thing: something plugged in.
        kind: what it is in words.
        package: whose code counts although it is installed.

    Raises:
        UsageError: that cannot be told.
    """
    try:
        return _Walk(package).digest(thing)
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{kind} uses something of which it cannot be told whether it has changed ({error}): give it, or "
            f"what holds it, an attribute `{_FINGERPRINT}`, a text that you change when it changes."
        ) from error


def _hash(parts: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


class _Walk:
    """A walk through something and all that it refers to."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._done: dict[int, tuple[bytes, Any]] = {}  # with the value, so that its number is no other's
        self._open: list[int] = []

    def digest(self, value: Any) -> bytes:  # noqa: ANN401 (anybody's)
        """A digest of a value; inside itself, of how far above it is."""
        if isinstance(value, str | bool | int | float | complex | None | type(...)):
            return repr(value).encode("utf-8", "backslashreplace")
        if id(value) in self._done:
            return self._done[id(value)][0]
        if id(value) in self._open:
            return f"above {len(self._open) - self._open.index(id(value))}".encode()
        self._open.append(id(value))
        found = _hash(self._parts(value))
        self._open.pop()
        self._done[id(value)] = found, value
        return found

    def _all(self, values: Iterable[Any]) -> Iterator[bytes]:
        return map(self.digest, values)

    def _parts(self, value: Any) -> Iterator[bytes]:  # noqa: ANN401 (anybody's)
        """The value as byte strings, the first of which says what kind of thing it is."""
        told = getattr(value, _FINGERPRINT, None)
        if isinstance(told, str):
            yield from (b"fingerprint", told.encode())
        elif isinstance(value, bytes | bytearray):
            yield from (b"bytes", bytes(value))
        elif isinstance(value, FunctionType | type) and not self._counts(value):
            yield from (b"name", f"{value.__module__}.{value.__qualname__}".encode())
        elif isinstance(value, FunctionType):
            yield from self._of_function(value)
        elif isinstance(value, type):
            yield from self._of_class(value)
        elif isinstance(value, ModuleType):
            yield from (b"module", value.__name__.encode())
        elif inner := _inside(value):
            yield from (b"around", type(value).__name__.encode(), *self._all(inner))
        elif type(value).__module__ == "builtins" and hasattr(value, "__qualname__"):
            yield from (b"name", f"{getattr(value, '__module__', '')}.{value.__qualname__}".encode())
        else:
            yield from self._of_data(value)

    def _counts(self, value: FunctionType | type) -> bool:
        """Whether its code counts: it is of the package that offers it, or of none that is installed."""
        module = value.__module__ or ""
        package = module.partition(".")[0]
        if package in _OURS:
            return module.startswith(_CONTRIBUTED)
        return bool(package and package == self._package) or not _is_installed(module)

    def _of_function(self, value: FunctionType) -> Iterator[bytes]:
        yield b"function"
        yield from self._of_code(value.__code__, value.__doc__)
        yield from self._all((value.__defaults__, value.__kwdefaults__))
        for cell in value.__closure__ or ():
            try:
                yield self.digest(cell.cell_contents)
            except ValueError:  # it is not filled yet
                yield b"empty"
        names = _names_in(value.__code__)
        for name in sorted(names & value.__globals__.keys()):
            used = value.__globals__[name]
            yield from (name.encode(), self.digest(used))
            if isinstance(used, ModuleType) and not _is_installed(used.__name__):
                for inner in sorted(names & vars(used).keys()):
                    yield from (inner.encode(), self.digest(vars(used)[inner]))

    def _of_code(self, code: CodeType, docstring: str | None = None) -> Iterator[bytes]:
        yield from (b"code", code.co_code, repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from self._of_code(constant)
            elif docstring is None or constant != docstring:
                yield self.digest(constant)

    def _of_class(self, value: type) -> Iterator[bytes]:
        yield from (b"class", value.__qualname__.encode(), *self._all(value.__bases__))
        for name, each in sorted(vars(value).items()):
            if name not in _PASSED_OVER and name != "_abc_impl":
                yield from (name.encode(), self.digest(each))

    def _of_data(self, value: Any) -> Iterator[bytes]:  # noqa: ANN401 (anybody's)
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            flat = value.detach().cpu().contiguous().reshape(-1)
            yield from (b"tensor", str((value.dtype, tuple(value.shape))).encode())
            yield flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
        elif torch is not None and isinstance(value, torch.nn.Module):
            # In training or not, it is the same network.
            state = {name: each for name, each in vars(value).items() if name != "training"}
            yield from (b"network", *self._all((type(value), state)))
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            yield from (b"array", str((value.dtype, value.shape)).encode(), value.tobytes())
        elif isinstance(value, _DRAWING):  # what it draws next is no part of what it is
            yield from (b"draws", type(value).__name__.encode())
        elif isinstance(value, Mapping):
            pairs = sorted(value.items(), key=lambda pair: repr(pair[0]))
            yield from (b"mapping", type(value).__name__.encode(), *self._all(chain.from_iterable(pairs)))
        elif isinstance(value, Set):
            yield from (b"set", *sorted(self._all(value)))
        elif type(value) in (list, tuple):
            yield from (b"sequence", *self._all(value))
        else:
            yield from self._of_state(value)

    def _of_state(self, value: Any) -> Iterator[bytes]:  # noqa: ANN401 (anybody's)
        """What pickle would keep of something: that makes it what it is."""
        kept = value.__reduce_ex__(2)
        yield b"state"
        if isinstance(kept, str):
            yield from (type(value).__name__.encode(), kept.encode())
        else:
            yield from self._all(list(each) if isinstance(each, Iterator) else each for each in kept)


def _inside(value: Any) -> tuple[Any, ...]:  # noqa: ANN401 (anybody's)
    """The functions that something is around; none if it is something else."""
    if isinstance(value, MethodType):
        return value.__func__, value.__self__
    if isinstance(value, property):
        return value.fget, value.fset, value.fdel
    if isinstance(value, staticmethod | classmethod):
        return (value.__func__,)
    if isinstance(value, cached_property):
        return (value.func,)
    wrapped = getattr(value, "__wrapped__", None)  # as functools.cache leaves it
    return () if wrapped is None or isinstance(value, Sequence | Mapping) else (wrapped,)


def _is_installed(module: str) -> bool:
    """Whether a module is Python's, or of an installed package; one that nobody can find is not."""
    if module.partition(".")[0] in _OURS:
        return True
    found = sys.modules.get(module)
    file = getattr(found, "__file__", None)
    if file is None:
        return found is not None and module != "__main__"
    path = Path(file).resolve()
    return not _INSTALLED.isdisjoint(path.parts) or path.is_relative_to(_STDLIB)


def _names_in(code: CodeType) -> set[str]:
    """The names that code and the functions inside it use."""
    inner = (_names_in(each) for each in code.co_consts if isinstance(each, CodeType))
    return set(code.co_names).union(*inner)
