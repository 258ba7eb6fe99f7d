"""Processes that start in milliseconds: forked from one that has imported the client and the vendor."""

from multiprocessing import get_context

# One server of forks for a whole process of tests: what is preloaded is for all who use it.
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["client.buying.teacher", "vendor_service.serving.app", "vendor_service.serving.server"]
)
