"""What the files in docker/ promise, held against the programs that they start."""
