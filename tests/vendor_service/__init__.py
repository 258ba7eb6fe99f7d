"""Tests of the vendor."""
