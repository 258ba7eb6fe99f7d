"""Imported by the server of forks: a vendor of tests measures the passes of its model less often."""

from vendor_service.encoder import graph

graph._ROUNDS = 2
