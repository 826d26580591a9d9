"""The project's image, built from the Dockerfile (`make image`).

If no image can be pulled, the base is a Debian trixie with Python, made by debootstrap. The locked packages are downloaded
beforehand by this machine's pip, because the build does not know its index and certificates.
"""

from __future__ import annotations

import pathlib
import platform
import shutil
import subprocess
import sys

from tests.harness import debian
from tests.harness.cluster import ROOT

from . import archive
from .archive import write_image
from .cached import ensure_image, key_of
from .engine import Engine

__all__ = ["IMAGE", "build_image", "make_base"]

IMAGE = "docker.io/library/vmnic:0.1.0"
"""Full name of `vmnic:0.1.0` in a manifest."""
_PACKAGES = ("python3", "python3-venv", "kmod")
_PYTHON = "3.13"
"""Python of trixie and of the Dockerfile's base."""
_GLIBC = ("manylinux2014", "manylinux_2_28", "manylinux_2_34")
LOCK = ROOT / "requirements-image.lock"


def make_base(engine: Engine, cache: pathlib.Path) -> str:
    """Ensure that there is a base image without a pull, and return its tag."""
    key = key_of(*_PACKAGES, files=[pathlib.Path(debian.__file__), pathlib.Path(archive.__file__)])

    def write(path: pathlib.Path, tag: str) -> None:
        tree = path.with_suffix(".tree")
        shutil.rmtree(tree, ignore_errors=True)
        debian.make_tree("trixie", _PACKAGES, tree)
        write_image(path, tag, tree)
        shutil.rmtree(tree)

    return ensure_image(engine, "base", key, cache, write)


def build_image(engine: Engine, base: str, cache: pathlib.Path) -> None:
    """Build the image as IMAGE.

    Args:
        engine: Engine that builds it.
        base: The base image.
        cache: Directory of the downloaded packages.
    """
    wheels = _fetch_wheels(cache)
    # The build sees only its context directory, and the cache is outside of it.
    inside = ROOT / "wheels"
    shutil.rmtree(inside, ignore_errors=True)
    shutil.copytree(wheels, inside, copy_function=_link)
    try:
        arguments = ("--build-arg", f"BASE_IMAGE={base}", "--build-arg", "PIP_NO_INDEX=1")
        engine.run("build", *arguments, "-t", IMAGE, ROOT)
    finally:
        shutil.rmtree(inside)
    if engine.environment:
        # podman's storage is private to the tests. Layers of today speed up the next build; older ones only take space.
        engine.run("image", "prune", "-f", "--filter", "until=24h")


def _fetch_wheels(cache: pathlib.Path) -> pathlib.Path:
    """Download the packages of the lock file for the image's Python, and return their directory."""
    wheels = cache / f"wheels-{key_of(_PYTHON, files=[LOCK])}"
    if wheels.exists():
        return wheels
    for old in cache.glob("wheels-*"):
        shutil.rmtree(old)
    fresh = wheels.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    platforms = [word for glibc in _GLIBC for word in ("--platform", f"{glibc}_{platform.machine()}")]
    subprocess.run(
        [sys.executable, "-m", "pip", "-q", "download", "--require-hashes", "--only-binary", ":all:", "--python-version",
         _PYTHON, *platforms, "--dest", str(fresh), "--requirement", str(LOCK)],
        check=True,
    )  # fmt: skip
    fresh.rename(wheels)
    return wheels


def _link(source: str, target: str) -> None:
    try:
        pathlib.Path(target).hardlink_to(source)
    except OSError:
        shutil.copy(source, target)
