"""Purchases: plans, budgets, and batches that are paid for once."""
