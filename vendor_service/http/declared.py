"""Routes made from the declared acts and queries: who asks, what is given, and what is answered."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar, get_args, get_origin

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, create_model

from shared.billing import Entry
from shared.errors import ErrorCode
from shared.http.body import read_model
from shared.http.errors import invalid
from shared.moments import Moment
from vendor_service.acts.declaration import (
    REQUIRED,
    Declared,
    DeclaredAct,
    DeclaredQuery,
    Parameter,
    Recorded,
    Value,
)
from vendor_service.acts.examples import example_of
from vendor_service.clock import from_datetime
from vendor_service.errors import APIError
from vendor_service.terms import Term, Unit

Who = TypeVar("Who", contravariant=True)
Row = TypeVar("Row")
IdempotencyKey = Annotated[
    str,
    Header(
        alias="idempotency-key",
        min_length=1,
        max_length=255,
        description="A name of your own for this request; sent again under it, it is done once.",
    ),
]
_PAGING = (
    Parameter("after", str, False, "", Term("The first field of the last row that was seen.")),
    Parameter("limit", int, False, 100, Term("How many rows are answered.", least=1, most=1000)),
)
_TAGS = {
    "containment": "keys",
    "disputes": "billing",
    "doctor": "health",
    "invitations": "console",
    "invoicing": "billing",
    "jobs": "bulk jobs",
    "money": "billing",
    "receipts_keys": "receipts",
    "receivers": "webhooks",
    "sessions": "console",
}


@dataclass(frozen=True)
class Once:
    """A request that moves money: its idempotency key, and all that tells it from another one."""

    key: str
    asked: str


class Listed(BaseModel, Generic[Row]):
    """A page of a list; with `has_more`, ask again after the last row, which its first field names."""

    data: list[Row]
    has_more: bool = False


class Door(Protocol, Generic[Who]):
    """A guard of routes: who may ask, and where their requests are done."""

    def route_of(self, declared: Declared) -> str:
        """The method and the whole path, or nothing where there is no route."""

    def admit(self, declared: Declared, /) -> Value:
        """The type of a parameter by which FastAPI finds who asks, if they may."""

    def adapted(self, declared: Declared) -> Sequence[Parameter]:
        """The parameters that have to be given here."""

    def documented(self, declared: Declared) -> dict[str, Value]:
        """Further OpenAPI entries of a route."""

    async def ask(self, who: Who, declared: DeclaredQuery, given: dict[str, Value]) -> Value:
        """Ask a query."""

    async def perform(
        self, who: Who, declared: DeclaredAct, given: dict[str, Value], once: Once | None
    ) -> Value:
        """Do an act."""


def add_routes(router: APIRouter, door: Door[Who], declared: Iterable[Declared]) -> None:
    """Add a route for each act and query that has one here."""
    for each in declared:
        if not (route := door.route_of(each)):
            continue
        method, _, path = route.partition(" ")
        parameters = [
            *door.adapted(each),
            *(_PAGING if isinstance(each, DeclaredQuery) and each.is_cut else ()),
        ]
        outside = [
            one
            for one in parameters
            if method in ("GET", "DELETE") or one.term.in_query or f"{{{one.on_wire}}}" in path
        ]
        inside = [one for one in parameters if one not in outside]
        body = _body(each, inside) if inside else None
        returned = each.hints["return"]
        if get_origin(returned) is list:
            returned = Listed[get_args(returned)[0]]  # type: ignore[misc]
        router.add_api_route(
            path,
            _endpoint(door, each, path, outside, body),
            methods=[method],
            status_code=each.status if isinstance(each, DeclaredAct) else 200,
            response_model=Entry if returned is Recorded else returned,
            operation_id=each.operation_id,
            summary=each.summary,
            description=each.description,
            tags=[_TAGS.get(each.noun, each.noun)],
            openapi_extra=door.documented(each) | ({} if body is None else _taking(each, body)),
        )


@dataclass(frozen=True)
class _Body:
    """The model of a body, and the parameters that its fields are."""

    model: type[BaseModel]
    parameters: Sequence[Parameter]

    def given_by(self, sent: BaseModel) -> dict[str, Value]:
        """The sent values, by the names of parameters."""
        return {
            each.name: _inside(each, getattr(sent, each.on_wire))
            for each in self.parameters
            if each.on_wire in sent.model_fields_set
        }


def _endpoint(
    door: Door[Who], declared: Declared, path: str, outside: Sequence[Parameter], body: _Body | None
) -> Callable[..., Awaitable[Value]]:
    """A function of the parameters outside the body, which it reads itself, once it is known who asks."""

    async def answer(
        request: Request, who: Who, idempotency_key: str | None = None, **values: Value
    ) -> Value:
        given = {each.name: _inside(each, values[each.name]) for each in outside}
        once = None
        if body is not None:
            sent = await read_model(request, body.model)
            given |= body.given_by(sent)
            if idempotency_key is not None:
                once = Once(idempotency_key, f"{request.url.path} {sent.model_dump_json()}")
        elif isinstance(declared, DeclaredAct) and (await request.body()).strip() not in (b"", b"{}"):
            raise invalid("this takes no body; what is to be given belongs in the URL")
        if isinstance(declared, DeclaredQuery):
            return _listed(*await _asked(door, who, declared, given))
        assert isinstance(declared, DeclaredAct)
        return _listed(await door.perform(who, declared, given, once), False)

    taken: dict[str, tuple[Value, Value]] = {
        "request": (Request, REQUIRED),
        "who": (door.admit(declared), REQUIRED),
    }
    if isinstance(declared, DeclaredAct) and declared.moves_money:
        taken["idempotency_key"] = (IdempotencyKey, REQUIRED)
    taken |= {each.name: _outside(each, path) for each in outside}
    answer.__name__ = inspect.unwrap(declared.function).__name__
    answer.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for name, (kind, default) in taken.items()
        ]
    )
    return answer


async def _asked(
    door: Door[Who], who: Who, declared: DeclaredQuery, given: dict[str, Value]
) -> tuple[Value, bool]:
    """The answer to a query, and whether a list of it goes on behind what was asked for."""
    if declared.is_cut:
        after, limit = given.pop("after"), given.pop("limit")
        return _cut(await door.ask(who, declared, given), after, limit)
    # A list that begins with its last rows has none behind them.
    if not declared.is_list or given["after"] is None:
        return await door.ask(who, declared, given), False
    found = await door.ask(who, declared, {**given, "limit": given["limit"] + 1})
    return found[: given["limit"]], len(found) > given["limit"]


def _cut(rows: Sequence[BaseModel], after: str, limit: int) -> tuple[Sequence[BaseModel], bool]:
    """Up to `limit` of the rows behind the one whose first field is `after`; and whether there are more."""
    names = [str(getattr(each, next(iter(type(each).model_fields)))) for each in rows]
    if after and after not in names:
        raise APIError(ErrorCode.NOT_FOUND, f"{after!r} is not in this list; begin anew", param="after")
    begin = names.index(after) + 1 if after else 0
    return rows[begin : begin + limit], len(rows) > begin + limit


def _listed(result: Value, more: bool) -> Value:
    return {"data": result, "has_more": more} if isinstance(result, list) else result


def _outside(each: Parameter, path: str) -> tuple[Value, Value]:
    """The type and the default of a parameter in the path or in the query."""
    kind, told = _kind(each), {"alias": each.on_wire, **_bounds(each)}
    if f"{{{each.on_wire}}}" in path:
        return Annotated[kind, Path(**told)], REQUIRED
    return Annotated[kind | None if each.default is None else kind, Query(**told)], each.default


def _body(declared: Declared, parameters: Sequence[Parameter]) -> _Body:
    """A body of these fields and no others, with numbers that are numbers."""
    fields: dict[str, Any] = {}
    for each in parameters:
        kind: Any = _kind(each)
        default = ... if each.is_required else None if each.only_changes else each.default
        if isinstance(default, frozenset | tuple):
            default = sorted(default)
        fields[each.on_wire] = (kind | None if each.may_be_none else kind, Field(default, **_bounds(each)))
    config = ConfigDict(extra="forbid", strict=True)
    name = "".join(word.capitalize() for word in declared.name.replace(".", "_").split("_"))
    return _Body(create_model(name, __config__=config, __doc__=declared.description, **fields), parameters)


def _bounds(each: Parameter) -> dict[str, Any]:
    """The bounds of a value, as they are documented and checked."""
    term = each.term
    told = {
        "description": term.help or None,
        "ge": term.least,
        "le": term.most,
        "max_length": term.longest,
        "pattern": term.pattern,
    }
    return {name: value for name, value in told.items() if value is not None}


def _taking(declared: Declared, body: _Body) -> dict[str, Any]:
    """The OpenAPI entry of a body that a route reads itself, with an example of it."""
    shown = example_of(declared)
    example = {each.on_wire: shown[each.name] for each in body.parameters if each.name in shown}
    content = {"schema": body.model.model_json_schema(), "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def _kind(each: Parameter) -> Value:
    """The type of a value on the wire."""
    if each.term.unit is Unit.MOMENT:
        return Moment
    if each.several is None:
        return each.kind
    return list[Literal[tuple(map(str, each.several))]]  # type: ignore[misc]


def _inside(each: Parameter, value: Value) -> Value:
    """A value of the wire as the function takes it.

    Raises:
        APIError: `not_found`; a whole secret stands for an id, and belongs in no URL.
    """
    if value is None:
        return None
    if each.term.unit is Unit.MOMENT:
        return from_datetime(value)
    if each.several is not None:
        return frozenset(map(each.several, value))
    if each.term.id_of is not None and (only := each.term.id_of(value)) is not None:
        message = f"that has its secret in it, which belongs in no URL; name the id alone, {only}"
        raise APIError(ErrorCode.NOT_FOUND, message, param=each.on_wire)
    return value
