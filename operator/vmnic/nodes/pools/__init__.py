"""What a pool asks of each node. Pure."""
