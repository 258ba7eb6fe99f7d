"""The results of a run: accuracy by domain, and the pages that show it."""
