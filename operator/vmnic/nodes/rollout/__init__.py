"""Pure decisions about which nodes may change when."""
