"""What is sold: embeddings, and the list of models that make them."""
