"""Pure decisions about VMs.

For each NIC they choose a datapath and record why every other candidate was excluded.
"""
