"""Caches of cluster objects, and what is computed from them."""
