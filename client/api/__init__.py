"""The Python API: one function for each thing that the client does. `import client` offers all of it."""
