"""Projects: parts of an account, which the audit log names among what was done to it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Annotated

from sqlalchemy.orm import Session

from shared.projects import DEFAULT_PROJECT, ProjectInfo
from vendor_service.accounts import accounts, projects
from vendor_service.accounts.projects import ProjectTerms
from vendor_service.acts.act import Act, OperatorScope
from vendor_service.acts.declaration import Changes, Own, act, changes_of, facts_of, preview, query
from vendor_service.acts.names import AccountName, ProjectName
from vendor_service.database.tables import Account, Project
from vendor_service.database.view import View
from vendor_service.errors import UsageError
from vendor_service.terms import Term

_NO_LIMIT = "only the account's limit"
_LIMITS = ("quota", "spend_limit_micros", "queries_per_second")


def by_name(act: Act, account: str, name: str, *, lock: bool = False) -> Project:
    """The project that an act is about, with its account locked if it is to be changed.

    Raises:
        UnknownName: there is no such account or project.
    """
    owner = accounts.find_account(act.session, account, lock=lock)
    return projects.find_project(act.session, owner, name)


@act(
    "project.create",
    command="projects create",
    route="POST /accounts/{account}/projects",
    status=201,
    scope=OperatorScope.ACCOUNTS,
    title="Add a project",
    done="{account} has a project {name}. Next, make a key for it.",
    none=_NO_LIMIT,
)
def create(
    act: Act,
    account: AccountName,
    name: Annotated[str, Term("The project's name.", label="Name", typed="NAME", wire="project")],
    terms: ProjectTerms,
) -> ProjectInfo:
    """Add a project to an account; the account's own limits hold beside those of the project.

    Example: vendor projects create acme search --quota 10000
    """
    owner = accounts.find_account(act.session, account, lock=True)
    project = projects.create_project(act.session, owner, name, terms, act.clock)
    act.session.flush()
    act.record(account, None, {"project": name, **asdict(terms)})
    return projects.public(project, owner, act.now)


@preview(create)
def _of_create(act: Act, account: str, name: str, terms: ProjectTerms) -> Iterator[str]:
    yield f"{accounts.find_account(act.session, account).name} gets a project {name!r}."
    yield from facts_of(ProjectTerms, asdict(terms))
    yield "Its limits hold inside those of the account. Keys are made for it, and stay in it."


@act(
    "project.set",
    command="projects set",
    route="PATCH /accounts/{account}/projects/{project}",
    scope=OperatorScope.ACCOUNTS,
    title="Change the limits of the project",
    done="The limits of {name} of {account} were changed.",
    none=_NO_LIMIT,
    of=by_name,
    state=lambda project: [getattr(project, name) for name in _LIMITS],
    applies=lambda project: project.archived_at is None,
)
def change(
    act: Act,
    account: AccountName,
    name: ProjectName,
    limits: Annotated[Mapping[str, int | None], Changes(ProjectTerms)],
) -> ProjectInfo:
    """Let other limits hold from now on: those that are named, all of them or none.

    What was used of the former limits counts. `none` takes a limit away.

    Example: vendor projects set acme search --quota 20000 --rate none
    """
    if not limits:
        raise UsageError("name at least one field that is to change")
    owner, project = _locked(act, account, name)
    with act.changing(owner, project, _LIMITS, {"project": name}):
        projects.change_terms(project, replace(projects.terms_of(project), **limits))
    return projects.public(project, owner, act.now)


@preview(change)
def _of_change(act: Act, account: str, name: str, limits: Mapping[str, int | None]) -> Iterator[str]:
    project = by_name(act, account, name)
    facts = changes_of(ProjectTerms, project, limits, _NO_LIMIT)
    if not facts:
        raise UsageError("nothing would change; write another number first")
    yield from facts
    owner = act.session.get_one(Account, project.account_id)
    used = projects.public(project, owner, act.now).queries_used
    yield f"What was used of this period ({used:,} queries) counts. The new limits apply at once."


@act(
    "project.archive",
    command="projects archive",
    route="POST /accounts/{account}/projects/{project}/archive",
    scope=OperatorScope.ACCOUNTS,
    title="Archive the project",
    done="The project {name} of {account} was archived.",
    of=by_name,
    applies=lambda project: project.archived_at is None,
    dangerous=True,
)
def archive(act: Act, account: AccountName, name: ProjectName) -> ProjectInfo:
    """End a project for good: its keys are refused. What is in flight is answered and charged.

    Example: vendor projects archive acme search
    """
    owner, project = _locked(act, account, name)
    with act.changing(owner, project, ("archived_at",), {"project": name}):
        projects.archive(project, act.now)
    return projects.public(project, owner, act.now)


@preview(archive)
def _of_archive(act: Act, account: str, name: str) -> Iterator[str]:
    project = by_name(act, account, name)
    if project.archived_at is not None:
        return
    yield f"The project {name} of {account} ends at once and for good."
    yield "All its keys are refused from then on, and anybody who signed in with one is signed out."
    yield f"What is in flight ({project.queries_held:,} queries) is answered and charged."
    yield "What was bought for it stays in the ledger, and its name is not free again."


@query(
    command="projects list",
    route="GET /accounts/{account}/projects",
    own=Own(route="GET /v1/projects", scope=None),
)
def list_projects(act: Act, account: AccountName) -> list[ProjectInfo]:
    """List an account's projects with what they have used. The default one has the account's limits alone.

    A customer's key that sees one project lists that one.

    Example: vendor projects list acme
    """
    owner = accounts.find_account(act.session, account)
    found = projects.list_projects(act.session, act.view(owner))
    return [projects.public(each, owner, act.now) for each in found]


def in_view(session: Session, view: View, owner: Account, now: int) -> list[ProjectInfo]:
    """An account's projects in view with what they used, those in use first."""
    found = [projects.public(each, owner, now) for each in projects.list_projects(session, view)]
    return sorted(found, key=lambda each: each.archived_at is not None)


def open_names(found: Sequence[ProjectInfo]) -> list[str]:
    """The projects that a new key can belong to."""
    return [DEFAULT_PROJECT, *(each.project for each in found if each.archived_at is None)]


def _locked(act: Act, account: str, name: str) -> tuple[Account, Project]:
    project = by_name(act, account, name, lock=True)
    return act.session.get_one(Account, project.account_id), project
