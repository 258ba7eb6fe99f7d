"""Proofs about a vendor: its ledger, its receipts, the model that it sells."""
