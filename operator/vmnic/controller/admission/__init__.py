"""Admission webhook, served by every replica."""
