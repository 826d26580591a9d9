"""The admission webhook, served by every replica."""
