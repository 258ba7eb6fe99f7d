"""Every act and every query that is declared, by its name."""

from vendor_service.acts import (
    accounts,
    audit,
    containment,
    disputes,
    doctor,
    invitations,
    invoicing,
    jobs,
    keys,
    models,
    money,
    operators,
    prices,
    projects,
    receipts_keys,
    receivers,
    sessions,
)
from vendor_service.acts.declaration import ACTS, QUERIES

__all__ = ["ACTS", "NOUNS", "QUERIES"]

NOUNS = (
    accounts,
    projects,
    keys,
    containment,
    invitations,
    sessions,
    money,
    invoicing,
    disputes,
    jobs,
    prices,
    operators,
    receivers,
    receipts_keys,
    models,
    audit,
    doctor,
)
