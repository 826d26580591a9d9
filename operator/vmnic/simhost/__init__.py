"""Simulated host behind the ports of `vmnic.host`.

It behaves as the kernel does for PCI, SR-IOV and netlink, with the same errors.
"""
