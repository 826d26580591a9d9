"""The controller, which merges pools into NodeNicStates, grants plans, and decides and patches VMs."""
