"""The Linux adapters for files and modules; the root is a parameter, so the same code serves a container's `/host`."""

from __future__ import annotations

import errno
import os
import pathlib
import subprocess

from .linux_links import LinuxLinks
from .ops import ListDir, LoadModule, Op, ReadFile, ReadLink, Value, WriteFile
from .ports import Host

__all__ = ["LinuxFiles", "LinuxModules", "linux_host"]

_SYSFS_PAGE_BYTES = 4096


class LinuxFiles:
    """Reads and writes the kernel's files below a root directory."""

    def __init__(self, root: str = "/") -> None:
        self._root = root.rstrip("/")

    def perform(self, op: Op) -> Value:
        """Perform an operation on files; one write is one `write(2)`, as sysfs expects.

        Raises:
            OSError: the kernel refused.
        """
        match op:
            case ReadFile(path):
                return self._read(path)
            case WriteFile(path, text):
                self._write(path, text)
                return None
            case ListDir(path):
                return tuple(sorted(os.listdir(self._root + path)))  # noqa: PTH208 - one system call, no objects
            case ReadLink(path):
                return os.readlink(self._root + path)  # noqa: PTH115 - likewise
        raise OSError(errno.ENOSYS, f"no operation on files: {op}")

    def _read(self, path: str) -> str:
        descriptor = os.open(self._root + path, os.O_RDONLY)
        try:
            return os.read(descriptor, _SYSFS_PAGE_BYTES).decode(errors="replace").removesuffix("\n")
        finally:
            os.close(descriptor)

    def _write(self, path: str, text: str) -> None:
        descriptor = os.open(self._root + path, os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


class LinuxModules:
    """Loads kernel modules with the `modprobe` program."""

    def __init__(self, root: str = "/") -> None:
        self._modules = pathlib.Path(root, "sys/module")

    def perform(self, op: Op) -> Value:
        """Load a module; one that is there, or built in, is no error.

        Raises:
            OSError: ENOENT where there is no such module, EPERM without CAP_SYS_MODULE.
        """
        if not isinstance(op, LoadModule):
            raise OSError(errno.ENOSYS, f"no operation on modules: {op}")
        if (self._modules / op.name).exists():
            return None
        done = subprocess.run(["modprobe", op.name], capture_output=True, text=True, check=False)
        if done.returncode:
            words = done.stderr.strip() or f"modprobe ended with {done.returncode}"
            code = errno.ENOENT if "not found" in words else errno.EPERM if "permitted" in words else errno.EIO
            raise OSError(code, words)
        return None


def linux_host(root: str = "/") -> Host:
    """Give the host that this process runs on."""
    return Host(files=LinuxFiles(root), links=LinuxLinks(), modules=LinuxModules(root))
