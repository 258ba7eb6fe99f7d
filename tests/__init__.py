"""The tests. They compute on one thread: a fork has none of the threads of a team."""

import os

# Before anything imports torch, which reads them once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
