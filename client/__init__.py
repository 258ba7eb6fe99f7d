"""The client: buy a teacher's embeddings once, and distil a small student from them.

What a program needs is importable from here: `VendorClient` (a vendor over HTTP), `EmbeddingCache` (what was
paid for), `Query` (what is bought), `Budget` (how much may be spent), `Teacher` (the cache, then the budget,
then the vendor) and the root of the error tree, `ClientError` (the tree itself is drawn in client/errors.py).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.buying.budget import Budget
    from client.buying.cache import EmbeddingCache
    from client.buying.queries import Query
    from client.buying.teacher import Teacher
    from client.buying.vendor_api import VendorClient
    from client.errors import ClientError

__all__ = ["Budget", "ClientError", "EmbeddingCache", "Query", "Teacher", "VendorClient"]

_HOMES = {
    "Budget": "client.buying.budget",
    "ClientError": "client.errors",
    "EmbeddingCache": "client.buying.cache",
    "Query": "client.buying.queries",
    "Teacher": "client.buying.teacher",
    "VendorClient": "client.buying.vendor_api",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 (whatever it is that is asked for)
    """Import a public name when it is first asked for, so that a command imports no more than it uses."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
