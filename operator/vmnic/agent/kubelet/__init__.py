"""The device plugin.

It advertises the node's VFs and whole NICs to the kubelet and fences them while they change.
"""
