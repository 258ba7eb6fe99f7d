"""Webhooks: events written in the transaction that causes them, and their delivery to who wants to know."""
