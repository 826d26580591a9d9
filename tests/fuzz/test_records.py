"""For junk in any field, a HostRecord is read, planned and simulated, or refused with the field."""

import asyncio
import contextlib
import json
import pathlib

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.node import pool
from vmnic.cli.objects import Objects
from vmnic.cli.recorded import plan_recorded
from vmnic.host.client import LocalHost
from vmnic.inspection.host_snapshot import read_snapshot
from vmnic.records.anonymise import anonymise
from vmnic.records.document import RecordFileError, parse_record, read_record_file, write_record
from vmnic.records.record import HostRecord, RecordError, to_record
from vmnic.records.recorded_host import RecordedHost
from vmnic.simhost.from_record import spec_of
from vmnic.simhost.host import SimHost
from vmnic.simhost.spec import ImpossibleHostError

from .bounds import within_bounds
from .junk import dump, mutations
from .settings import inputs

HOSTS = pathlib.Path(__file__).parents[1] / "hosts"
FIELDS = tuple(field.encode_name for field in msgspec.structs.fields(HostRecord))
POOLS = [
    pool("virtual", numVfs=2, nicSelector={"drivers": ["igb", "i40e", "mlx5_core"]}),
    pool("whole", function="Physical", numVfs=None, nicSelector={"minLinkSpeedMbps": 1000}),
]


def documents():
    """Return small records of all sorts, as parsed documents."""
    found = [msgspec.to_builtins(read_record_file(path)) for path in sorted(HOSTS.glob("*.yaml"))]
    return [json.loads(json.dumps(one)) for one in found if len(json.dumps(one)) < 10_000]


def names_a_field(message):
    """Return whether a message begins with the path of a field, or with the document as a whole."""
    path = message.partition(":")[0]
    return path == "the document" or path.partition("[")[0].partition(".")[0] in FIELDS or path.startswith("...")


def refuse_or_read(raw):
    """Return the record in a text, or None after checking how it is refused."""
    try:
        value = msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return None
    try:
        return to_record(value)
    except RecordError as error:
        message = str(error)
    assert names_a_field(message), message[:200]
    return None


def use(record):
    """Use a record in every way in which the commands use one."""
    assert parse_record(write_record(record), "test") == record
    to_record(msgspec.to_builtins(anonymise(record)))
    objects = Objects()
    objects.pools |= {one.metadata.name: one for one in POOLS}
    objects.host_records[record.metadata.name] = record
    plans = plan_recorded(objects)
    assert not plans.set_aside, plans.set_aside
    with contextlib.suppress(ImpossibleHostError):
        simulated = SimHost(spec_of(record))
        asyncio.run(read_snapshot(LocalHost(simulated), leave_out=()))
    with contextlib.suppress(OSError):
        asyncio.run(read_snapshot(LocalHost(RecordedHost(record)), leave_out=()))


@inputs(share=4)
@given(mutations(documents()))
def test_a_record_of_junk_is_used_or_refused(document):
    def read(raw):
        record = refuse_or_read(raw)
        if record is not None:
            use(record)

    within_bounds(lambda: dump(document), read)


@inputs(share=4)
@given(st.one_of(mutations(documents()).map(lambda one: dump(one).decode("utf-8", "replace")), st.text(max_size=200)))
def test_a_file_of_junk_is_a_record_or_refused(text):
    def read(text):
        with contextlib.suppress(RecordFileError):
            assert isinstance(parse_record(text, "junk.yaml"), HostRecord)

    within_bounds(lambda: text, read)
