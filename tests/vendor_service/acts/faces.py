"""The faces of the declared acts: the same act done by its function, its command, its route and its form."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from tests.vendor_service.cli.command import Command
from tests.vendor_service.console.visits import Visit
from tests.vendor_service.http.local_admin import LocalAdmin
from vendor_service.acts.act import OperatorScope
from vendor_service.acts.declaration import Declared, DeclaredAct, Parameter
from vendor_service.clock import to_datetime
from vendor_service.terms import Unit, money

Given = Mapping[str, Any]


def typed(declared: DeclaredAct, given: Given) -> list[str]:
    """The words of the command that does it."""
    words, last = declared.command.split(), []
    for each in declared.parameters:
        if each.name not in given or not each.term.typed:
            continue
        written = _written(each, given[each.name], typed=True)
        if each.term.is_argument:
            last += written
        else:
            spelling = each.term.typed.split()[0]
            words += (
                [spelling] if given[each.name] is True else [one for w in written for one in (spelling, w)]
            )
    agreed = ["--yes"] if declared.asks_at_times else []
    return [*words, *agreed, "--", *last]


def request_of(route: str, declared: Declared, given: Given) -> tuple[str, str, dict[str, Any] | None]:
    """The method, the path and the body of the request that does it by a route."""
    method, _, path = route.partition(" ")
    body: dict[str, Any] = {}
    query: list[str] = []
    for each in declared.parameters:
        if each.name not in given:
            continue
        value = given[each.name]
        if f"{{{each.on_wire}}}" in path:
            path = path.replace(f"{{{each.on_wire}}}", str(value))
        elif each.term.in_query:
            if each.term.unit is Unit.MOMENT:
                value = f"{to_datetime(value):%Y-%m-%dT%H:%M:%SZ}"
            query.append(f"{each.on_wire}={value}")
        elif each.term.unit is Unit.MOMENT and value is not None:
            body[each.on_wire] = to_datetime(value).isoformat()
        else:
            body[each.on_wire] = sorted(value) if each.several else value
    takes_body = method == "PATCH" or any(f"{{{each.on_wire}}}" not in path for each in declared.parameters)
    return method, "?".join([path, *query]), body if takes_body and method != "DELETE" else None


def form_of(declared: DeclaredAct, given: Given) -> dict[str, Any]:
    """The fields of the form that does it."""
    return {
        each.in_form: _written(each, given[each.name], typed=False)
        for each in declared.parameters
        if each.name in given and each.term.typed
    }


def _written(each: Parameter, value: Any, *, typed: bool) -> list[str]:
    if value is None:
        return ["none"]
    if each.several is not None:
        assert isinstance(value, Collection)
        return [str(one) for one in sorted(value)]
    if each.term.unit is Unit.MOMENT:
        return [f"{to_datetime(value):%Y-%m-%dT%H:%M}"]
    if each.term.unit in (Unit.MONEY, Unit.PRICE):
        return [money(value)]
    return [str(value)]


@dataclass(frozen=True)
class Faces:
    """The three ways in which operators act on the same books."""

    admin: LocalAdmin
    vendor: Command
    visits: Mapping[OperatorScope, Visit]

    def by_command(self, declared: DeclaredAct, given: Given) -> None:
        """Type it."""
        code, _, err = self.vendor(*typed(declared, given))
        assert code == 0, err

    def by_route(self, declared: DeclaredAct, given: Given) -> None:
        """Ask for it, twice where it moves money: once counts."""
        answer = self.ask(declared, given, OperatorScope.ALL)
        assert answer.status_code == declared.status, answer.text
        if declared.moves_money:
            again = self.ask(declared, given, OperatorScope.ALL)
            assert (again.text, again.headers["idempotent-replayed"]) == (answer.text, "true")

    def by_form(self, declared: DeclaredAct, given: Given) -> None:
        """Send its form and agree to what it says; twice where that would repeat it: once counts."""
        visit, path = self.visits[OperatorScope.ALL], f"/do/{declared.name}"
        asked = visit.ask(path, **form_of(declared, given), back="/audit")
        assert "This is what will happen" in asked.text, asked.text
        for _ in range(2 if declared.repeats else 1):
            done = visit.confirm(path, asked)
            assert done.status_code in (200, 303), done.text

    def ask(self, declared: DeclaredAct, given: Given, scope: OperatorScope) -> httpx.Response:
        """Ask for it by its route."""
        method, path, body = request_of(declared.route, declared, given)
        key = f"{declared.name} {given}"[:255] if declared.moves_money else None
        return self.admin.ask(method, path.removeprefix("/"), body, scope=scope, key=key)


def without_names(text: str, names: Mapping[str, str]) -> str:
    """What was recorded, without ids, secrets and moments, which are never twice the same."""
    for name, role in sorted(names.items(), key=lambda each: -len(each[0])):
        text = text.replace(name, role)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ][\d:.]+(\+00:00|Z)?", "WHEN", text)
    # A moment in microseconds looks like an id, one in two thousand of which has digits alone.
    return re.sub(r"\b(op_|wh_|evt_|acct_|proj_|batch_)?[0-9a-f]{16,64}\b|\breq_\d+|[\w-]{43}\b", "ID", text)
