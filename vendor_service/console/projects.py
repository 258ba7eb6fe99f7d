"""Projects as the pages of both sites show them, and the limits that a form gives one."""

from sqlalchemy.orm import Session

from shared.projects import DEFAULT_PROJECT, ProjectInfo
from vendor_service.accounts import projects
from vendor_service.accounts.projects import ProjectTerms
from vendor_service.console.forms import Fields
from vendor_service.console.rendering import money
from vendor_service.database.tables import Account


def all_of(session: Session, account: Account, now: int) -> list[ProjectInfo]:
    """An account's projects with what they used, those in use first."""
    found = [projects.public(each, account, now) for each in projects.list_projects(session, account)]
    return sorted(found, key=lambda each: each.archived_at is not None)


def open_names(found: list[ProjectInfo]) -> list[str]:
    """The projects that a new key can belong to."""
    return [DEFAULT_PROJECT, *(each.name for each in found if each.archived_at is None)]


def terms_of(form: Fields) -> ProjectTerms:
    """The limits that a form wants.

    Raises:
        UsageError: something makes no sense.
    """
    return ProjectTerms(form.number("quota"), form.money("spend_limit"), form.number("rate"))


def told(terms: ProjectTerms, per_period: str) -> dict[str, str]:
    """Limits by their names, in words; `per_period` is for how long quota and spend limit are."""
    quota, spend_limit, rate = terms.quota, terms.spend_limit_micros, terms.queries_per_second
    none = "only the account's"
    return {
        "Quota": none if quota is None else f"{quota:,} queries {per_period}",
        "Spend limit": none if spend_limit is None else f"{money(spend_limit)} {per_period}",
        "Rate": none if rate is None else f"{rate:,} queries a second",
    }
