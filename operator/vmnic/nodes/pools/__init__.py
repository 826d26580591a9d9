"""Pure decisions about what a pool asks of each node."""
