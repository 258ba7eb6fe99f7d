"""What tests and benchmarks share: the real vendor, databases, proxies and what breaks them."""
