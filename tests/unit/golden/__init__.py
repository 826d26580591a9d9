"""Golden files, which are outputs that must not change unless the commit explains it."""
