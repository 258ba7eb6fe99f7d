"""What does an operator see and do? The pages of the vendor, at `/operator`."""
