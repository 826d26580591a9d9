"""One reconciler per kind of key; each is level-triggered and may repeat."""
