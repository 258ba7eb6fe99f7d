"""The keys that vendors publish, pinned with the dates when they were seen, and signed by their vendors."""

import hashlib
from collections.abc import Collection
from contextlib import suppress

from client.cache.tables import KeyRow, Tables
from client.vendors.signatures import BadSignature, KeyChanges, SignedKeys, by_id
from client.vendors.statements import key_of


class Keys:
    """The keys in one cache. Thread-safe."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def pin(self, vendor: str, published: SignedKeys | None, asked_at: float) -> KeyChanges:
        """Remember the keys that a vendor publishes, and compare them with those that it published before.

        A key that another process saw after this one had asked is not missed: it may be that new.

        Args:
            vendor: its address.
            published: its keys; `None` of a vendor that does not sign.
            asked_at: when they were asked for, in seconds since 1970.
        """
        with self._tables.transaction():
            before = {row.kid: row for row in self._tables.keys(vendor)}
            listed = {} if published is None else by_id(published.claims.keys)
            for kid, key in listed.items():
                known = before.get(kid)
                first, last = (known.first_seen, known.last_seen) if known else (asked_at, asked_at)
                seen = min(first, asked_at), max(last, asked_at)
                self._tables.put_key(KeyRow(vendor, kid, key.x, *seen, key.withdrawn, None))
            hidden = [row for row in before.values() if row.kid not in listed and row.last_seen < asked_at]
            for row in hidden:
                self._tables.put_key(row._replace(hidden=row.hidden or asked_at))
            if published is not None:
                said = "".join(each.model_dump_json() for each in published.claims.keys)
                name = f"{vendor} {hashlib.sha256(said.encode()).hexdigest()}"
                self._tables.put_statement(name, "keys", vendor, published.token, published.key.x)
        withdrawn = [
            kid
            for kid, row in before.items()
            if row.withdrawn is None and kid in listed and listed[kid].withdrawn
        ]
        return KeyChanges([row.kid for row in hidden], withdrawn)

    def all(self) -> list[KeyRow]:
        """The keys of all vendors, in the order in which they were seen."""
        return self._tables.keys()

    def sets(self, kids: Collection[str]) -> list[str]:
        """The key sets that name one of these, each as its vendor signed it."""
        found = []
        for token, signer in self._tables.statements("keys"):
            with suppress(BadSignature):
                if any(key.kid in kids for key in SignedKeys.read(token, key_of(signer)).claims.keys):
                    found.append(token)
        return found
