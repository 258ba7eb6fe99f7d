"""The audit log: who changed what in the books, and when."""
