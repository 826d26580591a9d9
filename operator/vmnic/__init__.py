"""vmnic: prepares SR-IOV NICs on nodes and gives KubeVirt VMs the NIC datapath that a policy asks for."""

__version__ = "0.1.0"
