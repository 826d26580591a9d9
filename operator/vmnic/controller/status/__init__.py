"""Conditions of pools and policies, and the Events about their changes."""
