"""The only code that touches a node: operations, ports, adapters, the worker that runs them."""
