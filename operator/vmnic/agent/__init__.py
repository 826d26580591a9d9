"""The agent on a node: observe, plan, claim, apply, read back, report."""
