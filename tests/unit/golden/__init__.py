"""Golden files: outputs that must not change unless the commit says so."""
