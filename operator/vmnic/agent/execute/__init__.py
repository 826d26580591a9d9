"""Carries a change of one function out, and checks it."""
