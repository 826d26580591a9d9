"""Pure conversions of libvirt domain XML to facts, and of decisions to new XML."""
