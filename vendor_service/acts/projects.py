"""Acts on projects. The audit log names a project among what was done to its account."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

from shared.projects import ProjectInfo
from vendor_service.accounts import accounts, projects
from vendor_service.accounts.projects import ProjectTerms
from vendor_service.acts.act import Act
from vendor_service.database.tables import Account, Project
from vendor_service.money import periods, thresholds


def create(act: Act, account: str, name: str, terms: ProjectTerms) -> ProjectInfo:
    """Add a project to an account; raises what `projects.create_project` does."""
    owner = accounts.find_account(act.session, account, lock=True)
    project = projects.create_project(act.session, owner, name, terms, act.clock)
    act.session.flush()
    act.record("project.create", account, None, {"project": name, **asdict(terms)})
    return projects.public(project, owner, act.now)


def set_quota(act: Act, account: str, name: str, quota: int | None) -> ProjectInfo:
    """Let another quota hold from now on; raises what `projects.change_terms` does."""
    owner, project = _locked(act, account, name)
    return _change(act, owner, project, "quota", replace(projects.terms_of(project), quota=quota))


def set_spend_limit(act: Act, account: str, name: str, micros: int | None) -> ProjectInfo:
    """Let another spend limit hold from now on; raises what `projects.change_terms` does."""
    owner, project = _locked(act, account, name)
    terms = replace(projects.terms_of(project), spend_limit_micros=micros)
    return _change(act, owner, project, "spend_limit", terms)


def set_rate_limit(act: Act, account: str, name: str, queries_per_second: int | None) -> ProjectInfo:
    """Let another rate hold from now on; raises what `projects.change_terms` does."""
    owner, project = _locked(act, account, name)
    terms = replace(projects.terms_of(project), queries_per_second=queries_per_second)
    return _change(act, owner, project, "rate_limit", terms)


def set_terms(act: Act, account: str, name: str, changes: Mapping[str, int | None]) -> ProjectInfo:
    """Let other limits hold from now on: each field of `changes` that differs is an act of its own.

    The fields are those of `ProjectTerms`. Raises what `projects.change_terms` does.
    """
    owner, project = _locked(act, account, name)
    for field, change in _CHANGES.items():
        if field in changes and changes[field] != getattr(project, field):
            change(act, account, name, changes[field])
    return projects.public(project, owner, act.now)


def archive(act: Act, account: str, name: str) -> ProjectInfo:
    """End a project for good; its keys are refused from now on."""
    owner, project = _locked(act, account, name)
    before = project.archived_at
    projects.archive(project, act.now)
    if before is None:
        told = [{"project": name, "archived_at": moment} for moment in (before, project.archived_at)]
        act.record("project.archive", account, *told)
    return projects.public(project, owner, act.now)


_CHANGES: Mapping[str, Callable[[Act, str, str, int | None], ProjectInfo]] = {
    "quota": set_quota,
    "spend_limit_micros": set_spend_limit,
    "queries_per_second": set_rate_limit,
}


def _locked(act: Act, account: str, name: str) -> tuple[Account, Project]:
    owner = accounts.find_account(act.session, account, lock=True)
    return owner, projects.find_project(act.session, owner, name)


def _change(act: Act, owner: Account, project: Project, what: str, terms: ProjectTerms) -> ProjectInfo:
    before, stood = asdict(projects.terms_of(project)), thresholds.levels(project)
    projects.change_terms(project, terms)
    if not periods.is_over(project, owner, act.now):  # what was used of a former period is no news
        thresholds.tell(act.session, owner, stood, act.percents, act.now, of=project)
    after = asdict(terms)
    changed = [field for field in after if before[field] != after[field]]
    facts = [
        {"project": project.name} | {field: side[field] for field in changed} for side in (before, after)
    ]
    if changed:
        act.record(f"project.set_{what}", owner.name, *facts)
    return projects.public(project, owner, act.now)
