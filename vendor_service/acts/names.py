"""The names and ids by which acts and queries take what they are about."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from vendor_service.accounts import keys
from vendor_service.terms import Term

AccountName = Annotated[str, Term("The account's name.", label="Account", typed="ACCOUNT", id_of=keys.id_of)]
Named = Annotated[
    str, Term("The account's name.", label="Name", typed="NAME", wire="account", id_of=keys.id_of)
]
OneAccount = Annotated[
    str | None, Term("Only this account.", label="Account", typed="ACCOUNT", none="all", in_query=True)
]
ProjectName = Annotated[str, Term("The project's name.", label="Project", typed="NAME", wire="project")]
KeyId = Annotated[
    str, Term("The middle part of a key: tk_<KEY_ID>_...", label="Key", typed="KEY_ID", id_of=keys.id_of)
]
_GRACE = Term(
    "Seconds for which the present secret stays good.",
    label="Grace for the present secret",
    typed="--grace",
    form="grace",
    least=0,
    most=keys.LONGEST_GRACE_SECONDS,
    in_query=True,
    choices={0: "none: it ends at once", 3600: "an hour", 86_400: "a day", 604_800: "a week"},
)
GraceSeconds = Annotated[int, _GRACE]
ReceiversGraceSeconds = Annotated[int, replace(_GRACE, example="86400")]


def ends_a_secret(_: object, given: Mapping[str, Any]) -> bool:
    """Whether a secret is good no longer at once, which programs use."""
    return not given.get("grace_seconds")
