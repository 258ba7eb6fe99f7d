"""What every published number comes from; not part of the tests."""
