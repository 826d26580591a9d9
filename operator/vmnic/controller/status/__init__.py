"""Writes conditions, and tells of their changes by Events."""
