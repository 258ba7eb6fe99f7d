"""The groups of `vendor` commands that work on the books."""
