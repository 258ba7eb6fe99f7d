"""Runs: from images and a budget to a student, its report, and tables of many of them."""
