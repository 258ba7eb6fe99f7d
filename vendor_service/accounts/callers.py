"""Who asks by a key, and what they see."""

from dataclasses import dataclass, field

from vendor_service.accounts.keys import Scope
from vendor_service.database.tables import Account, ApiKey
from vendor_service.database.view import DEFAULT_ID, View


@dataclass(frozen=True)
class Caller:
    """The account that asks, and the key with which it does.

    Both rows are as they were a moment ago, with what `Precheck` has let through since.
    """

    account_id: str
    key_id: str
    account: Account = field(repr=False, compare=False)
    key: ApiKey = field(repr=False, compare=False)
    secret_hash: str = field(default="", repr=False, compare=False)

    @property
    def view(self) -> View:
        """The part of the account that they see."""
        return view_by(self.account, self.key)

    @property
    def project_id(self) -> str:
        """The project for which they buy."""
        return self.key.project_id or DEFAULT_ID


def view_by(account: Account, key: ApiKey | None) -> View:
    """The view of somebody who asks by a key, or without one as somebody who was invited.

    A key sees its project. Of the keys of the default project those with the scope `admin` see the whole
    account, and so do all of them while it has no other project.
    """
    if key is None:
        return View.whole(account.id)
    if key.project_id is not None:
        return View(account.id, key.project_id)
    is_whole = not account.has_projects or Scope.ADMIN in key.scopes.split()
    return View(account.id, None if is_whole else DEFAULT_ID)
