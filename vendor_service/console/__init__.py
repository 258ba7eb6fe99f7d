"""What can be seen and done in a browser? Customers' pages at `/console`, operators' at `/operator`."""
