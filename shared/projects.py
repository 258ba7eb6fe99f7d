"""Answers about the projects of an account."""

from datetime import datetime

from pydantic import BaseModel

from shared.billing import RateLimit

# What belongs to no other project. It has the account's limits and none of its own.
DEFAULT_PROJECT = "default"


class ProjectInfo(BaseModel):
    """A project: its own limits inside the account's (`None`: only these), and what it used of them.

    Keys of one that was archived are refused.
    """

    project_id: str
    name: str
    quota: int | None
    queries_used: int
    queries_held: int
    spend_limit_micros: int | None
    spent_micros: int
    rate_limit: RateLimit | None
    created_at: datetime
    archived_at: datetime | None


class ProjectList(BaseModel):
    """The answer of `GET /v1/projects`: all but the default one."""

    data: list[ProjectInfo]
