"""The kinds of the API group `vmnic.dev`: pydantic models, the only source of the CRDs."""
