"""Pure decisions about VMs: which datapath each NIC gets, and why each other one fell out."""
