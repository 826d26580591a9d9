"""The agent on a node, which observes, plans, claims, applies, reads back and reports."""
