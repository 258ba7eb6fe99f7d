"""What was paid for? Embeddings, receipts and notes of what is owed: all SQL of the client."""
