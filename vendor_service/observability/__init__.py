"""What is told of the vendor: its log, its metrics, its traces."""
