"""Helpers of tests and benchmarks: the real vendor, databases, proxies and what breaks them."""
