"""Opening of VFIO groups and devices, as QEMU does it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib

__all__ = ["open_device", "open_group"]

_SET_IOMMU, _SET_CONTAINER, _GET_DEVICE = 0x3B66, 0x3B68, 0x3B6A
"""ioctl numbers of linux/vfio.h."""
_TYPE1 = 1


def open_group(function: pathlib.Path) -> contextlib.ExitStack:
    """Open the group of a sysfs function in a container, and return a stack that closes both."""
    with contextlib.ExitStack() as opened:
        _open_group(function, opened)
        return opened.pop_all()


def open_device(function: pathlib.Path) -> contextlib.ExitStack:
    """Open the group and the function's device, and return a stack that closes them."""
    with contextlib.ExitStack() as opened:
        group = _open_group(function, opened)
        # For a mutable buffer `ioctl` returns the result of the call, which is the descriptor.
        opened.callback(os.close, fcntl.ioctl(group, _GET_DEVICE, bytearray(function.name.encode() + b"\0")))
        return opened.pop_all()


def _open_group(function: pathlib.Path, opened: contextlib.ExitStack) -> int:
    container = _open("vfio", opened)
    group = _open((function / "iommu_group").readlink().name, opened)
    fcntl.ioctl(group, _SET_CONTAINER, container.to_bytes(4, "little"))
    fcntl.ioctl(container, _SET_IOMMU, _TYPE1)
    return group


def _open(name: str, opened: contextlib.ExitStack) -> int:
    descriptor = os.open(f"/dev/vfio/{name}", os.O_RDWR)
    opened.callback(os.close, descriptor)
    return descriptor
