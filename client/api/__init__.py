"""The Python API: one function for each thing that the client does. `import tuition` offers all of it."""
