"""The protocols that vendors may speak, by name: the modules in `teachers/`. Imports none of them."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # it takes a while to import
    from client.vendors.vendor import Vendor

_OWN = "tuition"


def protocol_names() -> tuple[str, ...]:
    """The names, Tuition's own first."""
    found = [each.name for each in iter_modules([str(Path(__file__).with_name("teachers"))])]
    return tuple(sorted(found, key=lambda name: (name != _OWN, name)))


if TYPE_CHECKING:
    ProtocolName = str
else:
    ProtocolName = Literal[protocol_names()]


def connect(
    protocol: ProtocolName,
    url: str,
    api_key: str | None,
    *,
    on_wait: Callable[[str], None] = lambda _: None,
    trace_headers: Callable[[], Mapping[str, str]] = dict,
) -> "Vendor":
    """A vendor that speaks a protocol; the other arguments are those of `Vendor`.

    Raises:
        UsageError: this is no URL, or no key.
    """
    module = import_module(f"client.vendors.teachers.{protocol}")
    vendor: Vendor = module.VENDOR(url, api_key, on_wait=on_wait, trace_headers=trace_headers)
    return vendor
