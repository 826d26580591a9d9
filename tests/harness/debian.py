"""Debian packages on this machine, and Debian trees made from them, for tiers that need more than Python."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Sequence

__all__ = ["CannotRun", "apt", "install", "make_tree", "mirror"]


class CannotRun(Exception):
    """This machine cannot run the tier.

    The message gives the reason.
    """


def install(programs: Sequence[str], packages: Sequence[str]) -> None:
    """Install packages unless all their programs are present.

    Raises:
        CannotRun: there is no apt-get, or it failed.
    """
    if all(shutil.which(name) for name in programs):
        return
    if shutil.which("apt-get") is None:
        raise CannotRun(f"it takes {', '.join(packages)} from Debian's packages, and there is no apt-get")
    print(f"installing {', '.join(packages)} from Debian's packages …", flush=True)
    apt("update")
    apt("install", "-y", "--no-install-recommends", *packages)


def apt(*arguments: str) -> None:
    """Run apt-get.

    Raises:
        CannotRun: it failed. The message contains its last output.
    """
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRun(f"apt-get {' '.join(arguments[:2])} failed: {done.stderr.strip()[-400:]}")


def mirror() -> str:
    """Return the address of this machine's Debian archive.

    Raises:
        CannotRun: this machine uses no Debian archive.
    """
    sources = pathlib.Path("/etc/apt/sources.list.d")
    for path in [*sources.glob("*.sources"), *sources.glob("*.list"), pathlib.Path("/etc/apt/sources.list")]:
        text = path.read_text() if path.exists() else ""
        for line in text.splitlines():
            words = line.split()
            address = words[1] if words[:1] in (["URIs:"], ["deb"]) and len(words) > 1 else ""
            if address.rstrip("/").endswith("/debian"):
                return address
    raise CannotRun("no Debian archive is among this machine's package sources")


def make_tree(suite: str, packages: Sequence[str], tree: pathlib.Path) -> None:
    """Create a minimal Debian with some packages in a directory, without manuals and caches.

    Raises:
        CannotRun: debootstrap failed. The message names its log.
    """
    log = tree.with_suffix(".log")
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", suite, str(tree), mirror()]
    with log.open("w") as output:
        done = subprocess.run(command, stdout=output, stderr=output, check=False)
    if done.returncode:
        raise CannotRun(f"debootstrap {suite} failed; its output is in {log}")
    for path in [*(tree / "var/cache/apt").glob("archives/*.deb"), *(tree / "var/cache/apt").glob("*.bin")]:
        path.unlink()
    for pattern in ("var/lib/apt/lists/*", "usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "var/log/*"):
        for path in tree.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
