"""Writer of single-layer images as archives for `docker load` and `ctr images import`. It needs no engine."""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import subprocess
import tarfile

__all__ = ["write_image"]

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def write_image(archive: pathlib.Path, name: str, tree: pathlib.Path, **config: object) -> None:
    """Pack a directory as an image.

    Args:
        archive: File to write.
        name: Name and tag of the image.
        tree: Root of its file system. All files in it become root's.
        config: Fields that `docker inspect` shows under Config, such as Entrypoint or StopSignal.
    """
    layer = archive.with_suffix(".layer")
    # A file's capabilities are extended attributes.
    attributes = ("--format=posix", "--xattrs", "--xattrs-include=security.capability")
    subprocess.run(["tar", "-C", str(tree), "--numeric-owner", *attributes, "-cf", str(layer), "."], check=True)
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    description = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": [_PATH], **config},
        # podman cannot build on an image without a history of each layer.
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "vmnic's tests"}],
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        _add(tar, "config.json", json.dumps(description))
        _add(tar, "manifest.json", json.dumps(manifest))
        tar.add(layer, "layer.tar")
    layer.unlink()


def _add(tar: tarfile.TarFile, name: str, text: str) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(text.encode())
    tar.addfile(member, io.BytesIO(text.encode()))
