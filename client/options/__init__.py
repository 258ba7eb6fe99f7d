"""Whatever can be set: each option of the Python API, the command line and tuition.toml is declared here."""
