"""Projects: parts of an account, each with limits of its own inside the account's."""

import secrets
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.projects import DEFAULT_PROJECT, ProjectInfo
from vendor_service.accounts.checks import check_name, check_numbers, check_rate
from vendor_service.clock import Clock, optional_datetime, to_datetime
from vendor_service.database.tables import Account, Project
from vendor_service.database.view import View
from vendor_service.errors import OperatorError, UnknownName
from vendor_service.money import rate
from vendor_service.terms import Quota, Rate, SpendLimit


@dataclass(frozen=True)
class ProjectTerms:
    """A project's own limits, the first two in the account's quota period; `None`: only the account's."""

    quota: Quota = None
    spend_limit_micros: SpendLimit = None
    queries_per_second: Rate = None


def create_project(
    session: Session, account: Account, name: str, terms: ProjectTerms, clock: Clock
) -> Project:
    """Add a project to an account, which this transaction must have locked.

    Raises:
        UsageError: the name or a limit cannot be.
        OperatorError: the account has a project of that name.
    """
    check_name(name, "a project")
    _check(terms)
    same = select(Project.id).where(Project.account_id == account.id, Project.name == name)
    if name == DEFAULT_PROJECT or session.scalar(same) is not None:
        raise OperatorError(f"{account.name} has a project {name!r} already")
    project = Project(
        id=f"proj_{secrets.token_hex(8)}",
        account_id=account.id,
        name=name,
        created_at=clock(),
        quota=terms.quota,
        spend_limit_micros=terms.spend_limit_micros,
        queries_per_second=terms.queries_per_second,
        period_started_at=account.period_started_at,
        queries_used=0,
        spent_micros=0,
        queries_held=0,
    )
    session.add(project)
    account.has_projects = True
    return project


def find_project(session: Session, account: Account, name: str) -> Project:
    """The project of that name, archived or not.

    Raises:
        UnknownName: the account has none; the default one has no limits of its own, and no end.
    """
    named = select(Project).where(Project.account_id == account.id, Project.name == name)
    project = session.scalar(named)
    if project is None:
        raise UnknownName(
            f"{account.name} has no project {name!r} with limits of its own; "
            f"list them with: `vendor projects list {account.name}`"
        )
    return project


def list_projects(session: Session, view: View) -> list[Project]:
    """The projects in view by name, without the default one."""
    mine = select(Project).where(Project.account_id == view.account_id)
    if not view.is_whole:
        mine = mine.where(Project.id == view.project_id)
    return list(session.scalars(mine.order_by(Project.name)))


def change_terms(project: Project, terms: ProjectTerms) -> None:
    """Let other limits hold from now on; what was used of the former ones counts.

    This transaction must have locked the account.

    Raises:
        UsageError: a limit cannot be.
    """
    _check(terms)
    project.quota = terms.quota
    project.spend_limit_micros = terms.spend_limit_micros
    project.queries_per_second = terms.queries_per_second


def archive(project: Project, now: int) -> None:
    """End a project for good: its keys are refused. What is in flight is answered and charged."""
    project.archived_at = project.archived_at or now


def terms_of(project: Project) -> ProjectTerms:
    """The limits that a project has."""
    return ProjectTerms(project.quota, project.spend_limit_micros, project.queries_per_second)


def public(project: Project, account: Account, now: int) -> ProjectInfo:
    """A project as its customer and its operator may see it."""
    # The month may have turned since the row was last written.
    over = project.is_period_over(account, now)
    return ProjectInfo(
        project_id=project.id,
        project=project.name,
        quota=project.quota,
        queries_used=0 if over else project.queries_used,
        queries_held=project.queries_held,
        spend_limit_micros=project.spend_limit_micros,
        spent_micros=0 if over else project.spent_micros,
        rate_limit=rate.limit_of(project),
        created_at=to_datetime(project.created_at),
        archived_at=optional_datetime(project.archived_at),
    )


def _check(terms: ProjectTerms) -> None:
    check_numbers(quota=terms.quota, spend_limit_micros=terms.spend_limit_micros)
    check_rate(terms.queries_per_second)
