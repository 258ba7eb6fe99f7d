"""PyTorch's compiler, loaded once it is needed, and not by libraries that are imported.

While they are imported, torchvision and timm ask `torch._dynamo` for two functions that do nothing until
something is compiled. Loading it takes as long as all the rest of timm. So a stand-in has the two, and the
compiler is loaded by whoever compiles a model, trains, or asks for anything else of it.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

_COMPILER, _UTILS = "torch._dynamo", "torch._dynamo.utils"
_NO_LIMIT = 1 << 30


class _StandIn(ModuleType):
    """Has what was set, and for anything else loads the module that it stands for."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name.startswith("__"):  # what the import system asks every module for
            raise AttributeError(name)
        return getattr(_compiler(self.__name__), name)


@contextmanager
def compiler_later() -> Iterator[None]:
    """Keep imports meanwhile from loading PyTorch's compiler."""
    if _COMPILER in sys.modules:
        yield
        return
    compiler, utils = _StandIn(_COMPILER), _StandIn(_UTILS)
    vars(compiler).update(disable=_disable, utils=utils)
    vars(utils).update(is_compile_supported=_is_compile_supported)
    sys.modules.update({_COMPILER: compiler, _UTILS: utils})
    try:
        yield
    finally:
        _take_away()


@contextmanager
def every_shape_compiled() -> Iterator[None]:
    """Compile meanwhile, on this thread, for each shape that comes.

    PyTorch otherwise stops at eight of one function, over all models that share it, and runs it as it is.
    """
    # Later releases than 2.6 call them otherwise, and know these names too.
    limits = dict.fromkeys(("cache_size_limit", "accumulated_cache_size_limit"), _NO_LIMIT)
    with _compiler().config.patch(limits):
        yield


def _take_away() -> None:
    for name in (_COMPILER, _UTILS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _compiler(name: str = _COMPILER) -> Any:  # noqa: ANN401
    """The real module of that name."""
    _take_away()
    return importlib.import_module(name)


def _disable(fn: Any = None, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
    """A function that is not to be compiled. As long as the compiler is not there, nothing is."""
    if not isinstance(fn, FunctionType):
        return _compiler().disable(fn, *arguments, **options)
    disabled: list[Callable[..., Any]] = []

    @functools.wraps(fn)
    def called(*given: Any, **named: Any) -> Any:  # noqa: ANN401
        if not disabled:
            if _COMPILER not in sys.modules:
                return fn(*given, **named)
            disabled.append(_compiler().disable(fn, *arguments, **options))
        return disabled[0](*given, **named)

    return called


def _is_compile_supported(device_type: str) -> bool:
    return bool(_compiler(_UTILS).is_compile_supported(device_type))
