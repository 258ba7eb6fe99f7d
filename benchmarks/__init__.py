"""Programs that measure the tables of the documents; not part of the tests."""
