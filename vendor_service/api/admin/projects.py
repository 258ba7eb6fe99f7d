"""`/admin/accounts/{name}/projects`: parts of an account, each with limits of its own."""

from typing import Annotated

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from shared.http.body import read_model
from shared.projects import ProjectInfo, ProjectList
from vendor_service.accounts import projects
from vendor_service.accounts.accounts import find_account
from vendor_service.accounts.projects import ProjectTerms
from vendor_service.acts import projects as acts
from vendor_service.acts.authentication import Operator
from vendor_service.acts.tokens import OperatorScope
from vendor_service.api.admin.desk import Body, Desk, taking
from vendor_service.errors import APIError


class ProjectChange(Body):
    """The limits that hold from now on: the fields that are sent; `null` is only the account's limit."""

    quota: int | None = None
    spend_limit_micros: int | None = None
    queries_per_second: int | None = None


class NewProject(ProjectChange):
    """A project to be added."""

    project: str


def projects_router(desk: Desk) -> APIRouter:
    """The routes; those that change something take the scope `accounts`."""
    router = APIRouter(prefix="/admin/accounts/{name}/projects", tags=["projects"])
    may_change = desk.requiring(OperatorScope.ACCOUNTS)

    @router.get("", dependencies=[desk.requiring(OperatorScope.READ)])
    async def list_all(name: str) -> ProjectList:
        """An account's projects with what they have used, by name, without the default one."""

        def read(session: Session) -> ProjectList:
            owner = find_account(session, name)
            found = projects.list_projects(session, owner)
            return ProjectList(data=[projects.public(each, owner, desk.clock()) for each in found])

        return await desk.read(read)

    @router.post("", status_code=201, openapi_extra=taking(NewProject))
    async def create(name: str, request: Request, operator: Annotated[Operator, may_change]) -> ProjectInfo:
        """Add a project; the account's own limits hold beside those of the project."""
        asked = await read_model(request, NewProject)
        terms = ProjectTerms(**asked.model_dump(exclude={"project"}))
        return await desk.act(operator, lambda act: acts.create(act, name, asked.project, terms))

    @router.patch("/{project}", openapi_extra=taking(ProjectChange))
    async def change(
        name: str, project: str, request: Request, operator: Annotated[Operator, may_change]
    ) -> ProjectInfo:
        """Let other limits hold from now on; of several changes all are made, or none."""
        changes = (await read_model(request, ProjectChange)).model_dump(exclude_unset=True)
        if not changes:
            raise APIError(ErrorCode.INVALID_REQUEST, "name at least one field that is to change")
        return await desk.act(operator, lambda act: acts.set_terms(act, name, project, changes))

    @router.post("/{project}/archive")
    async def archive(name: str, project: str, operator: Annotated[Operator, may_change]) -> ProjectInfo:
        """End a project for good: its keys are refused."""
        return await desk.act(operator, lambda act: acts.archive(act, name, project))

    return router
