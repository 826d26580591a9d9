"""Readers of a host's PCI functions, links, modules and files of other programs."""
