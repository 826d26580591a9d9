"""Kinds of the API group `vmnic.dev` as pydantic models, which are the only source of the CRDs."""
