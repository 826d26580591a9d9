"""The only code that touches a node.

It has the operations, the ports and adapters that perform them, and the worker that runs them.
"""
