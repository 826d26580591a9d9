"""What the agent reads on its host."""
