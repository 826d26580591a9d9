"""What the controller knows of the cluster."""
