"""HostRecords, which describe the NICs of a host as data, and hosts that are read from them."""
