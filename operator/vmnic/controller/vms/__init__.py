"""VirtualMachines and the policies that select them."""
