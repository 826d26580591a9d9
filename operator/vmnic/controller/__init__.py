"""The controller: merges pools into node states, grants plans within budgets, decides and patches VMs."""
