"""One file a step, named by number."""
