"""The vendor on a real Ray cluster of one machine; `make test-scale` runs these."""
