"""The Linux adapters for files and modules.

The root is a parameter, so that the same code serves a container in which the host is mounted at `/host`.
"""

from __future__ import annotations

import errno
import os
import pathlib
import stat
import subprocess
import threading

from .linux_links import LinuxLinks
from .ops import ListDir, LoadModule, Op, PutFile, ReadFile, ReadLink, UnloadModule, Value, WriteFile
from .ports import Host

__all__ = ["LinuxFiles", "LinuxModules", "linux_host"]

_UNROOTED = ("/proc/", "/sys/class/macvtap")
"""Paths that are the same in a container: its own /proc and /sys show the one kernel, and not all of /sys is mounted below the
root."""
_CHUNK_BYTES = 65536
"""Larger than a page, so that a sysfs file is read in one call."""
_MAX_BYTES = 2**19
"""Even as JSON, where a byte may take six characters, this fits into one reply."""


class LinuxFiles:
    """Reads and writes the kernel's files below a root directory."""

    def __init__(self, root: str = "/") -> None:
        self._root = root.rstrip("/")

    def perform(self, op: Op) -> Value:
        """Perform an operation on files. Each write is one `write(2)`, as sysfs expects.

        Raises:
            OSError: The kernel refused.
        """
        match op:
            case ReadFile(path):
                return self._read(path)
            case WriteFile(path, text):
                self._write(path, text)
                return None
            case PutFile(path, text):
                self._put(path, text)
                return None
            case ListDir(path):
                return tuple(sorted(os.listdir(self._at(path))))  # noqa: PTH208 - one system call, no objects
            case ReadLink(path):
                return os.readlink(self._at(path))  # noqa: PTH115 - likewise
        raise OSError(errno.ENOSYS, f"no operation on files: {op}")

    def _at(self, path: str) -> str:
        """Return the path below the root, or the path itself where the container shows the same."""
        return path if path.startswith(_UNROOTED) else self._root + path

    def _read(self, path: str) -> str:
        """Read a whole regular file.

        A pipe is refused because it would block. A file that is too large is refused because a part of it would be wrong.
        """
        # Without O_NONBLOCK, open(2) of a pipe without a writer would block before fstat can refuse it.
        descriptor = os.open(self._at(path), os.O_RDONLY | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                # EISDIR is a failed read for the agent. An errno such as ENOENT would count as absence.
                raise OSError(errno.EISDIR, "not a regular file")
            chunks: list[bytes] = []
            size = 0
            while chunk := os.read(descriptor, _CHUNK_BYTES):
                chunks.append(chunk)
                size += len(chunk)
                if size > _MAX_BYTES:
                    raise OSError(errno.EFBIG, f"more than {_MAX_BYTES} bytes")
            # The kernel writes ASCII. Other programs' files may not be UTF-8, which parsers recognize by U+FFFD.
            return b"".join(chunks).decode(errors="replace").removesuffix("\n")
        finally:
            os.close(descriptor)

    def _put(self, path: str, text: str) -> None:
        """Replace a file atomically, so that no process reads half of it."""
        target = pathlib.Path(self._at(path))
        if not text:
            target.unlink(missing_ok=True)
            return
        # PFs of one driver are changed in parallel and write the same file.
        fresh = target.with_name(f".{target.name}.{threading.get_native_id()}")
        with fresh.open("w") as file:
            file.write(text)
            file.flush()
            # modprobe reads the file at the next boot. Without the sync, a crash after the rename can leave it empty.
            os.fsync(file.fileno())
        fresh.replace(target)

    def _write(self, path: str, text: str) -> None:
        # Without O_CREAT, an attribute that the driver does not have is ENOENT, and no file appears below the root.
        descriptor = os.open(self._at(path), os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


class LinuxModules:
    """Loads and unloads kernel modules with the `modprobe` program."""

    def __init__(self, root: str = "/") -> None:
        self._modules = pathlib.Path(root, "sys/module")

    def perform(self, op: Op) -> Value:
        """Load or unload a module. A module that is already loaded or unloaded is no error.

        Raises:
            OSError: ENOENT if the module does not exist, EPERM without CAP_SYS_MODULE, EBUSY for a module in use, EKEYREJECTED
                for a module without a signature that the kernel trusts.
        """
        match op:
            case LoadModule(name):
                # Module names may contain dashes, but /sys/module has only underscores.
                if not (self._modules / name.replace("-", "_")).exists():
                    _modprobe(name)
            case UnloadModule(name):
                if (self._modules / name.replace("-", "_")).exists():
                    _modprobe("-r", name)
            case _:
                raise OSError(errno.ENOSYS, f"no operation on modules: {op}")
        return None


_MODPROBE_WORDS = {
    "not found": errno.ENOENT,
    "permitted": errno.EPERM,
    "in use": errno.EBUSY,
    # delete_module(2) with O_NONBLOCK answers EAGAIN for a module in use.
    "temporarily unavailable": errno.EBUSY,
    "Key was rejected": errno.EKEYREJECTED,
}
"""modprobe prints words where the kernel returned an errno."""


def _modprobe(*arguments: str) -> None:
    done = subprocess.run(["modprobe", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        words = done.stderr.strip() or f"modprobe ended with {done.returncode}"
        raise OSError(next((code for text, code in _MODPROBE_WORDS.items() if text in words), errno.EIO), words)


def linux_host(root: str = "/") -> Host:
    """Return the host on which this process runs."""
    return Host(files=LinuxFiles(root), links=LinuxLinks(), modules=LinuxModules(root))
