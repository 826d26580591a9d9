"""Pure decisions about nodes: which physical functions belong to which pool, what is to be done, in which order."""
