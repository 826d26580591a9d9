"""Build of a driver that creates fewer VFs than asked, which no driver of an emulated NIC does."""

from __future__ import annotations

import filecmp
import pathlib
import shutil
import subprocess
import tempfile

from .packages import unpack_headers

__all__ = ["make_module"]

_HERE = pathlib.Path(__file__).with_name("fewer_vfs")
_SOURCE = "fewer_vfs.c"


def make_module(directory: pathlib.Path, release: str) -> None:
    """Build the driver once for each kernel and put it among the kernel's modules.

    It is not registered with modprobe, because depmod takes 10 s.
    """
    place = directory / "kernel" / "lib" / "modules" / release / "extra"
    if (place / _SOURCE).exists() and filecmp.cmp(_HERE / _SOURCE, place / _SOURCE, shallow=False):
        return
    print("building a driver for the kernel, with its headers (16 MB) …", flush=True)
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as work:
        headers = unpack_headers(pathlib.Path(work), release)
        built = shutil.copytree(_HERE, pathlib.Path(work) / "driver")
        # The kernel's type information would need pahole, and nothing here reads it.
        words = (f"M={built}", "CC=gcc", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules")
        subprocess.run(["make", "--silent", "-C", str(headers), *words], check=True)
        for name in ("fewer_vfs.ko", _SOURCE):
            shutil.copy(built / name, place)
