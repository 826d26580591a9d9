"""Execution and verification of a change of one PF."""
