"""Every act and every query that is declared, by its name."""

from vendor_service.acts import (
    accounts,
    audit,
    invitations,
    jobs,
    keys,
    models,
    money,
    operators,
    prices,
    projects,
    receipts_keys,
    receivers,
)
from vendor_service.acts.declaration import ACTS, QUERIES

__all__ = ["ACTS", "NOUNS", "QUERIES"]

NOUNS = (
    accounts,
    projects,
    keys,
    invitations,
    money,
    jobs,
    prices,
    operators,
    receivers,
    receipts_keys,
    models,
    audit,
)
