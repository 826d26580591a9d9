"""Files of a host that are not small regular files. Reads of them never block and are never partial."""

import contextlib
import errno
import os

import pytest

from vmnic.host.linux import LinuxFiles
from vmnic.host.linux_links import pci_function_of
from vmnic.host.ops import ListDir, ReadFile


def read(root, name):
    return LinuxFiles(str(root)).perform(ReadFile(f"/{name}"))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: path.mkdir(), errno.EISDIR),
        (os.mkfifo, errno.EISDIR),
        (lambda path: path.symlink_to(path), errno.ELOOP),
        (lambda path: path.write_bytes(b"x" * (2**19 + 1)), errno.EFBIG),
    ],
    ids=["a directory", "a pipe", "a loop", "too large"],
)
def test_anything_but_a_small_regular_file_is_refused(tmp_path, make, code):
    make(tmp_path / "x")
    with pytest.raises(OSError) as error:  # noqa: PT011 - the errno is compared
        read(tmp_path, "x")
    assert error.value.errno == code


@pytest.mark.parametrize(
    ("place", "address"),
    [("pci0000:00/0000:00:03.0/virtio0", "0000:00:03.0"), ("platform/a000000.virtio_mmio/virtio0", None), ("virtio0", None)],
)
def test_a_virtio_link_belongs_to_its_pci_function(tmp_path, place, address):
    (tmp_path / "devices" / place).mkdir(parents=True)
    (tmp_path / "virtio0").symlink_to(tmp_path / "devices" / place)
    assert pci_function_of(tmp_path / "virtio0") == address


def test_the_largest_file_is_read_completely(tmp_path):
    (tmp_path / "x").write_bytes(b"y" * 2**19)
    assert len(read(tmp_path, "x")) == 2**19


def test_the_class_macvtap_is_read_outside_the_root(tmp_path):
    (tmp_path / "sys/class/macvtap/mounted").mkdir(parents=True)
    with contextlib.suppress(FileNotFoundError):
        assert LinuxFiles(str(tmp_path)).perform(ListDir("/sys/class/macvtap")) != ("mounted",)
