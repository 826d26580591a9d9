"""Which nodes may change when. Pure."""
