"""The parts of a site: pages, and actions with their questions and answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy.orm import Session
from starlette.responses import Response

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
        """The token that every form of this session has to bring."""

    @property
    def may_act(self) -> bool:
        """Whether there is anything that they may change."""


Who = TypeVar("Who", bound=Visitor)


@dataclass(frozen=True)
class ConsoleRequest(Generic[Who]):
    """A request: by whom, what its URL and its form say, when, and how this site is reached."""

    who: Who
    path: Mapping[str, str]
    query: Fields
    form: Fields
    now: int
    base_url: str


Built = Mapping[str, Any] | Response


@dataclass(frozen=True)
class Later:
    """A page that is built once the session of its request has ended.

    Whatever opens a session of its own is done here: who holds one and waits for another can wait for ever.
    It may write, as an action does.
    """

    build: Callable[[], Built]


@dataclass(frozen=True)
class Page(Generic[Who]):
    """A page below the site's root: `build` gives what its template shows, or a whole response.

    Pages with a `menu` are listed there, under that heading, or first of all for whom one `leads`. Where a
    visitor may ask for a few pages a second, one with a `cost` counts as that many.
    """

    path: str
    title: str
    template: str
    build: Callable[[ConsoleRequest[Who], Session], Built | Later]
    menu: str | None = None
    cost: int = 1
    leads: Callable[[Who], bool] = lambda _: False


@dataclass(frozen=True)
class Question:
    """The question before something is done, with its effect, fact by fact.

    The answer brings the `state` back (see `DeclaredAct.state_of`).
    """

    title: str
    facts: Sequence[str]
    button: str
    dangerous: bool = False
    state: str = ""


@dataclass(frozen=True)
class Done:
    """Something was done: what to say, and on which page of the site."""

    message: str
    to: str


@dataclass(frozen=True)
class Shown:
    """Something was done, and its result is a page."""

    title: str
    template: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Action(Generic[Who]):
    """The action of a form: for whom, and after which question, if any.

    `allow` raises an `APIError` for who may not; `back` gives the page to go back to. After an error `again`
    gives the form as it was sent, if it can be mended.
    """

    path: str
    back: Callable[[ConsoleRequest[Who]], str]
    allow: Callable[[Who], None]
    do: Callable[[ConsoleRequest[Who]], Done | Shown]
    ask: Callable[[ConsoleRequest[Who]], Question | None] | None = None
    again: Callable[[ConsoleRequest[Who], Any], Any] | None = None
