"""Faults planted in vmnic, each of which a test must notice."""
