"""`/admin`: what operators ask over HTTP. Every route calls the function that the command line calls."""
