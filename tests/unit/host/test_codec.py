"""Operations and results are equal after encoding and decoding."""

import json
import pathlib
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmnic.host import codec, ops
from vmnic.host.linux import LinuxFiles
from vmnic.host.ops import (
    Channels,
    LinkInfo,
    ListDir,
    LoadModule,
    ReadFile,
    ReadLink,
    ReadLinks,
    SetLink,
    VfInfo,
    WriteFile,
    is_write,
)
from vmnic.host.ports import Host

KINDS = typing.get_args(ops.Op)
READS = {
    *(ops.ReadFile, ops.ListDir, ops.ReadLink, ops.ReadLinks, ops.ReadVfs, ops.ReadUnicast, ops.ReadEswitchMode),
    *(ops.CheckGateway, ops.ReadChannels),
}
OPS = st.one_of(*(st.from_type(kind) for kind in KINDS))
VALUES = st.one_of(
    st.none(),
    st.text(),
    st.lists(st.text()).map(tuple),
    st.from_type(Channels),
    st.lists(st.from_type(LinkInfo), min_size=1).map(tuple),
    st.lists(st.from_type(VfInfo), min_size=1).map(tuple),
)


def test_every_operation_has_one_port_and_reads_or_writes():
    by_port = [*typing.get_args(ops.FileOp), *typing.get_args(ops.LinkOp), *typing.get_args(ops.ModuleOp)]
    by_effect = [*typing.get_args(ops.ReadOp), *typing.get_args(ops.WriteOp)]
    assert len(by_port) == len(by_effect) == len({*by_port, *by_effect})


@given(OPS)
def test_an_operation_survives_encoding(op):
    assert codec.decode_op(json.loads(json.dumps(codec.encode_op(op)))) == op


@given(VALUES)
def test_a_result_survives_encoding(value):
    assert codec.decode_value(json.loads(json.dumps(codec.encode_value(value)))) == value


@pytest.mark.parametrize("wire", [{"kind": "Format"}, {"kind": "ReadFile"}, {"kind": "ReadFile", "path": "/", "more": 1}, {}])
def test_an_invalid_operation_is_refused(wire):
    with pytest.raises(ValueError, match=r"ReadFile|no operation"):
        codec.decode_op(wire)


def test_an_error_keeps_its_errno():
    error = codec.decode_error(codec.encode_error(OSError(16, "busy")))
    assert (error.errno, error.strerror) == (16, "busy")


class Named:
    def __init__(self, name):
        self._name = name

    def perform(self, op):
        return self._name


@pytest.mark.parametrize(
    ("op", "port"),
    [
        (ReadFile("/a"), "files"), (WriteFile("/a", "1"), "files"), (ListDir("/"), "files"), (ReadLink("/a"), "files"),
        (ReadLinks(), "links"), (SetLink(name="a", up=True), "links"), (LoadModule("a"), "modules"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)  # fmt: skip
def test_each_operation_goes_to_its_port(op, port):
    assert Host(Named("files"), Named("links"), Named("modules")).perform(op) == port


@given(OPS)
def test_every_operation_except_reads_is_a_write(op):
    assert is_write(op) is (type(op) not in READS)


def test_files_are_found_below_a_root(tmp_path):
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys" / "value").write_text("7\n")
    (tmp_path / "sys" / "link").symlink_to("value")
    files = LinuxFiles(str(tmp_path))
    files.perform(WriteFile("/sys/value", "3"))
    assert (files.perform(ReadFile("/sys/value")), files.perform(ReadLink("/sys/link"))) == ("3", "value")
    assert files.perform(ListDir("/sys")) == ("link", "value")
    with pytest.raises(FileNotFoundError):
        files.perform(WriteFile("/sys/absent", "1"))
    assert not pathlib.Path(tmp_path, "sys/absent").exists()
