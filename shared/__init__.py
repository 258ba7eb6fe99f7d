"""The wire contract between vendor and client: pydantic, numpy and the standard library, nothing else."""
