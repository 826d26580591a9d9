"""Images that are made once and cached under a key of their inputs."""

from __future__ import annotations

import hashlib
import pathlib
import time
from collections.abc import Callable, Iterable

from .engine import Engine

__all__ = ["ensure_archive", "ensure_image", "key_of"]


def key_of(*parts: str, files: Iterable[pathlib.Path] = ()) -> str:
    """Return the key of some texts and the contents of some files."""
    digest = hashlib.sha256("\0".join(parts).encode())
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def ensure_image(engine: Engine, name: str, key: str, cache: pathlib.Path, write: Callable[[pathlib.Path, str], None]) -> str:
    """Ensure that the engine has an image, and return its tag.

    Args:
        engine: Engine that needs the image.
        name: Name of the image, without a tag.
        key: Key of its inputs; see `key_of`.
        cache: Directory of the archives. Archives of other keys are removed.
        write: Writes the archive of the image with a given tag.
    """
    tag = f"localhost/vmnic-test/{name}:{key}"
    if engine.has_image(tag):
        return tag
    archive = ensure_archive(name, key, cache, lambda path: write(path, tag))
    for old in engine.run("images", "--format", "{{.Repository}}:{{.Tag}}").split():
        if old.startswith(f"localhost/vmnic-test/{name}:"):
            engine.run("rmi", old, check=False)
    engine.run("load", "-i", archive)
    return tag


def ensure_archive(name: str, key: str, cache: pathlib.Path, write: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """Ensure that the cache has the archive of an image, and return its path. Archives of other keys are removed."""
    archive = cache / f"{name}-{key}.tar"
    if not archive.exists():
        print(f"making the image {name} …", flush=True)
        started = time.monotonic()
        for old in cache.glob(f"{name}-*"):
            if old.is_file():
                old.unlink()
        write(archive.with_suffix(".new"))
        archive.with_suffix(".new").rename(archive)
        print(f"    done in {time.monotonic() - started:.0f} s", flush=True)
    return archive
