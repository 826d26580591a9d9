"""What runs beside the reconcilers: threads, probes, the watchdog."""
