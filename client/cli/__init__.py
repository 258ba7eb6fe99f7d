"""`client`: every command parses, makes one call, and prints."""
