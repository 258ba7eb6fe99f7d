"""What operators do about the projects of an account."""

from dataclasses import asdict

from sqlalchemy.orm import Session

from vendor_service.accounts import projects
from vendor_service.accounts.accounts import find_account
from vendor_service.acts import projects as acts
from vendor_service.acts.act import Act
from vendor_service.acts.tokens import OperatorScope
from vendor_service.console.operators.acting import ACCOUNT, Acting, By, per_period, requiring
from vendor_service.console.operators.visitor import SignedInOperator
from vendor_service.console.projects import terms_of, told
from vendor_service.console.routes import Action, Done, Question, state_of
from vendor_service.database.tables import Account, Project
from vendor_service.errors import OperatorError, UsageError

_PROJECT = f"{ACCOUNT}/projects/{{project}}"


class ProjectActions(Acting):
    """The actions, on these books."""

    def all(self) -> list[Action[SignedInOperator]]:
        """Every action."""
        change = requiring(OperatorScope.ACCOUNTS)
        return [
            Action(f"{ACCOUNT}/projects/create", ACCOUNT, change, self.create, self.ask_to_create),
            Action(f"{_PROJECT}/limits", ACCOUNT, change, self.set_limits, self.ask_for_limits),
            Action(f"{_PROJECT}/archive", ACCOUNT, change, self.archive, self.ask_to_archive),
        ]

    def ask_to_create(self, asked: By, session: Session) -> Question:
        """What the new project will have."""
        account, terms = find_account(session, asked.path["name"]), terms_of(asked.form)
        facts = [
            f"{account.name} gets a project {asked.form.required('project')!r}.",
            *(f"{name}: {limit}." for name, limit in told(terms, per_period(account)).items()),
            "Its limits hold inside those of the account. Keys are made for it, and stay in it.",
        ]
        return Question("Add this project?", facts, "Add the project")

    def create(self, asked: By) -> Done:
        """Add a project."""
        name, project = asked.path["name"], asked.form.required("project")
        terms = terms_of(asked.form)
        self._act(asked, lambda act: acts.create(act, name, project, terms))
        return Done(f"{name} has a project {project}. Next: make it a key.", f"/accounts/{name}")

    def ask_for_limits(self, asked: By, session: Session) -> Question:
        """What changes of a project's limits."""
        account, project = _open(session, asked)
        now = told(projects.terms_of(project), per_period(account))
        wanted = told(terms_of(asked.form), per_period(account))
        facts = [f"{name}: {now[name]} → {wanted[name]}." for name in now if now[name] != wanted[name]]
        if not facts:
            raise UsageError("nothing would change; write another number first")
        shown = projects.public(project, account, asked.now)
        used = f"What was used of this period ({shown.queries_used:,} queries) counts. It holds at once."
        return Question(
            f"Change the limits of {project.name} of {account.name}?",
            [*facts, used],
            "Change it",
            state=_state(account, project),
        )

    def set_limits(self, asked: By) -> Done:
        """Let other limits of a project hold, all of them or none."""
        name, project, wanted = asked.path["name"], asked.path["project"], asdict(terms_of(asked.form))

        def change(act: Act) -> None:
            account = find_account(act.session, name, lock=True)
            found = projects.find_project(act.session, account, project)
            message = f"the limits of {project} of {name} were changed since this page was made"
            asked.check_state(_state(account, found), message)
            acts.set_terms(act, name, project, wanted)

        self._act(asked, change)
        return Done(f"The limits of {project} of {name} were changed.", f"/accounts/{name}")

    def ask_to_archive(self, asked: By, session: Session) -> Question:
        """What the end of a project means."""
        account, project = _open(session, asked)
        facts = [
            f"The project {project.name} of {account.name} ends at once and for good.",
            "All its keys are refused from then on, and who signed in with one is signed out.",
            f"What is in flight ({project.queries_held:,} queries) is answered and charged.",
            "What was bought for it stays in the ledger, and its name is not free again.",
        ]
        return Question("Archive this project?", facts, "Archive the project", dangerous=True)

    def archive(self, asked: By) -> Done:
        """End a project."""
        name, project = asked.path["name"], asked.path["project"]
        self._act(asked, lambda act: acts.archive(act, name, project))
        return Done(f"The project {project} of {name} was archived.", f"/accounts/{name}")


def _state(account: Account, project: Project) -> str:
    return state_of(account.quota_period, projects.terms_of(project))


def _open(session: Session, asked: By) -> tuple[Account, Project]:
    account = find_account(session, asked.path["name"])
    project = projects.find_project(session, account, asked.path["project"])
    if project.archived_at is not None:
        raise OperatorError(f"the project {project.name} of {account.name} was archived already")
    return account, project
