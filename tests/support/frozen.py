"""Imported last by the server of forks: what it has imported is never to be looked through for garbage.

A fork that does so takes half a second for it, and makes the pages its own that it shares with the others.
"""

import gc

gc.collect()
gc.freeze()
