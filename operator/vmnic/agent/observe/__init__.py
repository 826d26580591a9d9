"""What the agent reads of its host."""
