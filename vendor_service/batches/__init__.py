"""Bulk jobs: files of many requests, answered when nobody else asks."""
