"""Pools, their nodes and their networks."""
