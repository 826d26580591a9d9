"""The host contract, with the errnos and the lock waits of the kernel.

It runs on the simulated host and on a kernel. The simulator is only trusted because the kernel gives the same answers here.
"""

from __future__ import annotations

from .counts import CountContract
from .drivers import DriverContract, NoIommuContract
from .events import EventContract
from .files import FileContract, ModuleContract
from .holders import HolderContract
from .links import LinkContract
from .removal import RemovalContract
from .uppers import UpperContract
from .vfio import VfioContract
from .writers import WriterContract

__all__ = [
    "CountContract",
    "DriverContract",
    "EventContract",
    "FileContract",
    "HolderContract",
    "LinkContract",
    "ModuleContract",
    "NoIommuContract",
    "RemovalContract",
    "UpperContract",
    "VfioContract",
    "WriterContract",
]
