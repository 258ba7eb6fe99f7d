"""From bytes and texts to vectors: decoding, the model, and batches across callers. No HTTP, no money."""
