"""Customers: their accounts, their keys, and telling who is asking."""
