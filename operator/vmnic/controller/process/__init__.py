"""Threads, probes and watchdog of the controller's process."""
