"""The product: embeddings, and the list of models that make them."""
