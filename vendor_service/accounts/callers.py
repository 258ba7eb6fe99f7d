"""Who asks by a key."""

from dataclasses import dataclass, field

from vendor_service.database.tables import Account, ApiKey


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
