"""What makes the tables of the documents; not part of the tests."""
