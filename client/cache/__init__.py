"""The cache: embeddings, receipts and notes of batches in flight; all SQL of the client."""
