"""Logs, metrics and traces of the vendor."""
