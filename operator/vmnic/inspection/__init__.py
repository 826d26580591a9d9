"""Readers of a host: its PCI functions, links and modules, and the files of other programs."""
