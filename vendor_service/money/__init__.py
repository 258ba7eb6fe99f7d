"""Money: what a request may cost, what it did cost, and the ledger that says so."""
