"""libvirt's domain XML: facts of its NICs, and the XML that makes them as decided. Pure."""
