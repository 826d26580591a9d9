"""From what is asked of a function and what it is: the plan."""
