"""Whom is asked, and how? Queries, the vendors' APIs, and what vendors sign."""
