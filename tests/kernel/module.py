"""Build of drivers that do what no driver of an emulated NIC does."""

from __future__ import annotations

import filecmp
import pathlib
import shutil
import subprocess
import tempfile

from .packages import unpack_headers

__all__ = ["make_modules"]

_HERE = pathlib.Path(__file__).with_name("drivers")


def make_modules(directory: pathlib.Path, release: str) -> None:
    """Build the drivers once for each kernel and put them among the kernel's modules.

    They are not registered with modprobe, because depmod takes 10 s.
    """
    place = directory / "kernel" / "lib" / "modules" / release / "extra"
    sources = sorted(_HERE.glob("*.c"))
    if all((place / one.name).exists() and filecmp.cmp(one, place / one.name, shallow=False) for one in sources):
        return
    print("building drivers for the kernel, with its headers (16 MB) …", flush=True)
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as work:
        headers = unpack_headers(pathlib.Path(work), release)
        built = shutil.copytree(_HERE, pathlib.Path(work) / "drivers")
        # The kernel's type information would need pahole, and nothing here reads it.
        words = (f"M={built}", "CC=gcc", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules")
        subprocess.run(["make", "--silent", "-C", str(headers), *words], check=True)
        for one in sources:
            shutil.copy(built / f"{one.stem}.ko", place)
            shutil.copy(one, place)
