"""What does a customer see and do? The pages of an account, at `/console`."""
