"""What a site consists of: pages, and actions with what is asked before them and what they answer."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy.orm import Session
from starlette.responses import Response

from shared.errors import APIError, ErrorCode
from vendor_service.console.forms import Fields


class Visitor(Protocol):
    """Somebody who is signed in."""

    @property
    def name(self) -> str:
        """As the page's head names them."""

    @property
    def session_id(self) -> str:
        """Which session it is."""

    @property
    def csrf(self) -> str:
        """What every form of this session has to bring."""

    @property
    def may_act(self) -> bool:
        """Whether there is anything that they may change."""


Who = TypeVar("Who", bound=Visitor)


@dataclass(frozen=True)
class Asked(Generic[Who]):
    """A request: by whom, what its URL and its form say, when, and how this site is reached."""

    who: Who
    path: Mapping[str, str]
    query: Fields
    form: Fields
    now: int
    base_url: str

    def check_state(self, state: str, message: str) -> None:
        """Make sure that what the question was about is in this state, as it was when it was asked.

        Raises:
            APIError: `conflict`, with this message.
        """
        if self.form.get("state") != state:
            raise APIError(ErrorCode.CONFLICT, message)


Built = Mapping[str, Any] | Response


@dataclass(frozen=True)
class Later:
    """A page that is built once the session of its request has ended.

    What opens a session of its own is done here: who holds one and waits for another can wait for ever. It
    may write, as an action does.
    """

    build: Callable[[], Built]


@dataclass(frozen=True)
class Page(Generic[Who]):
    """A page below the site's root: `build` gives what its template shows, or a whole response.

    Pages with a `menu` are listed there, under that heading. One with a `cost` counts as so many pages where
    a visitor may ask for so many a second.
    """

    path: str
    title: str
    template: str
    build: Callable[[Asked[Who], Session], Built | Later]
    menu: str | None = None
    cost: int = 1


@dataclass(frozen=True)
class Question:
    """What is asked before something is done: what it will do, fact by fact.

    The answer brings the `state` back (see `state_of`), for `Asked.check_state`.
    """

    title: str
    facts: Sequence[str]
    button: str
    dangerous: bool = False
    state: str = ""


def state_of(*facts: object) -> str:
    """What a question keeps of these facts, to see later whether they still hold; it tells none of them."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()


@dataclass(frozen=True)
class Done:
    """Something was done: what to say, and on which page of the site."""

    message: str
    to: str


@dataclass(frozen=True)
class Shown:
    """Something was done, and is shown this once."""

    title: str
    template: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Action(Generic[Who]):
    """What a form does: for whom, after which question, if any.

    `allow` raises an `APIError` for who may not; `back` is the page to go back to.
    """

    path: str
    back: str
    allow: Callable[[Who], None]
    do: Callable[[Asked[Who]], Done | Shown]
    ask: Callable[[Asked[Who], Session], Question] | None = None
