"""The status of a NodeNicState, from an observation and the journal."""
