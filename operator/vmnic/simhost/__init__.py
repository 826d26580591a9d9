"""A simulated host: the kernel's PCI, SR-IOV and netlink behaviour with its exact errors, behind the host's own ports."""
