"""Plans, computed from the spec and the observed state of a PF."""
