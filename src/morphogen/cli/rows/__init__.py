"""Rows of files that people have, as the entries of a keyword table: each kind has a module."""
