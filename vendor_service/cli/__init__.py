"""`vendor`: the operator's command line. Every command parses, makes one call, and prints."""
