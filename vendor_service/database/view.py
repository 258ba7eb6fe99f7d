"""The view that somebody has of an account: the wall between its projects, and the only one.

Every function that finds what customers have (files, jobs, keys, entries, sums, events) takes a view in the
place of an account, and finds nothing outside it. `accounts/callers.py` says who has which.
"""

from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import ColumnElement, and_, func

# The project's id of what belongs to the default project, which has no row; NULL where a column may be.
DEFAULT_ID = ""
# That of what concerns an account as a whole.
NO_PROJECT = "*"


@dataclass(frozen=True)
class View:
    """All of an account, or with a `project_id` what belongs to that project."""

    account_id: str
    project_id: str | None

    @classmethod
    def whole(cls, account_id: str) -> Self:
        """All of an account, as operators see it."""
        return cls(account_id, None)

    @classmethod
    def of_project(cls, row: Any) -> Self:  # noqa: ANN401 - a row of a table of what accounts have
        """What belongs to the project that a row belongs to."""
        return cls(row.account_id, row.project_id or DEFAULT_ID)

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the account."""
        return self.project_id is None

    def rows(self, table: Any) -> ColumnElement[bool]:  # noqa: ANN401 - any table of what accounts have
        """The condition on the rows of a table that are in view."""
        mine: ColumnElement[bool] = table.account_id == self.account_id
        if self.project_id is None:
            return mine
        return and_(mine, func.coalesce(table.project_id, DEFAULT_ID) == self.project_id)

    def has(self, row: Any) -> bool:  # noqa: ANN401 - a row of such a table
        """Whether a row is in view."""
        is_mine: bool = row.account_id == self.account_id
        return is_mine and self.project_id in (None, row.project_id or DEFAULT_ID)
