"""Labelled images: folders to domains and classes, files to pixels, examples to splits."""
