"""Operator that prepares SR-IOV NICs on nodes and gives VMs the datapath that a policy asks for."""

__version__ = "0.1.0"
