"""Files of a host that are not small regular files. Reads of them never block and are never partial."""

import contextlib
import errno
import os

import pytest

from vmnic.host.linux import LinuxFiles
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


def test_the_largest_file_is_read_completely(tmp_path):
    (tmp_path / "x").write_bytes(b"y" * 2**19)
    assert len(read(tmp_path, "x")) == 2**19


def test_the_class_macvtap_is_read_outside_the_root(tmp_path):
    (tmp_path / "sys/class/macvtap/mounted").mkdir(parents=True)
    with contextlib.suppress(FileNotFoundError):
        assert LinuxFiles(str(tmp_path)).perform(ListDir("/sys/class/macvtap")) != ("mounted",)
