"""For junk, every reader and every projection returns a value or raises ValueError, within bounds."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.vm import preference, revision
from vmnic.checked.devices import MOST_VFS, is_pci_address, read_vf_range
from vmnic.checked.documents import check_depth, read_json
from vmnic.checked.quantities import LARGEST, read_integer, read_quantity
from vmnic.controller.caches.projections import decode_labelled, decode_node, decode_policy, decode_pool, decode_webhooks
from vmnic.controller.caches.shared_parts import decode_shared_instance, decode_shared_machine
from vmnic.kubevirt.assignment import assignments, parse_record
from vmnic.kubevirt.configuration import decode_kubevirt, kubevirt_facts
from vmnic.kubevirt.networks import decode_network
from vmnic.kubevirt.quota import quota_left, unreadable_quota
from vmnic.kubevirt.revisions import read_revision
from vmnic.kubevirt.vm import decode_instancetype, decode_machine, decode_preference, decode_quota, salvage_machine
from vmnic.kubevirt.vm_state import decode_vm_state
from vmnic.kubevirt.vmi import decode_instance
from vmnic.nodes.addresses import routing_id
from vmnic.nodes.pools.networks import decode_own_network
from vmnic.nodes.state import decode_node_state

from .bounds import within_bounds
from .junk import NUMBERS, TEXTS, Deep, dump, mutations
from .scene import OBJECTS, RECORD
from .settings import inputs

LOW, HIGH = -(10**6), 10**6
READERS = {
    "quantity": (read_quantity, lambda found: found is None or abs(found) <= LARGEST),
    "integer": (lambda value: read_integer(value, LOW, HIGH), lambda found: found is None or LOW <= found <= HIGH),
    "VF range": (lambda value: read_vf_range(str(value)), lambda found: found is None or 0 < len(found) <= MOST_VFS),
    "PCI address": (lambda value: value if is_pci_address(value) else None, lambda found: found is None or is_routable(found)),
    "depth": (lambda value: check_depth(value, 32), lambda found: found is None),
    "JSON": (lambda value: read_json(dump(value), object, max_bytes=2**18), lambda found: True),
    "JSON text": (lambda value: read_json(str(value).encode("utf-8", "replace"), object, max_bytes=2**18), lambda found: True),
}
"""Each reader with a property of everything that it returns."""
DECODERS = {
    "record": lambda raw: assignments(parse_record(bytes(raw).decode())),
    "virtualmachines": decode_machine,
    "virtualmachines salvaged": salvage_machine,
    "virtualmachines cached": decode_shared_machine,
    "virtualmachineinstances": decode_instance,
    "virtualmachineinstances cached": decode_shared_instance,
    "virtualmachineclusterpreferences": decode_preference,
    "virtualmachineclusterinstancetypes": decode_instancetype,
    "controllerrevisions": lambda raw: read_revision(msgspec.json.decode(raw)),
    "network-attachment-definitions": decode_network,
    "network-attachment-definitions of pools": decode_own_network,
    "kubevirts": lambda raw: kubevirt_facts(decode_kubevirt(raw)),
    "resourcequotas": lambda raw: (quota_left([decode_quota(raw)]), unreadable_quota([decode_quota(raw)])),
    "nodes": decode_node,
    "nodenicstates": decode_node_state,
    "namespaces": decode_labelled,
    "sriovnetworkpools": decode_pool,
    "vmnicpolicies": decode_policy,
    "vmnicstates": decode_vm_state,
    "mutatingwebhookconfigurations": decode_webhooks,
}
SEEDS = {name: OBJECTS.get(name.partition(" ")[0], msgspec.json.decode(RECORD)) for name in DECODERS}
SEEDS["controllerrevisions"] = revision("kept", preference(model="e1000e", multiqueue=True))


def is_routable(address):
    """Return whether a PCI address names one of 32 devices and one of 8 functions."""
    return routing_id(address) <= 0xFFFF and int(address[8:10], 16) < 32 and int(address[11:]) < 8


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


_values = st.one_of(
    st.sampled_from(NUMBERS + TEXTS),
    st.text(st.sampled_from("0123456789eE+-.:numkKMGTPEi \x00é\u0661"), max_size=80),
    st.from_regex(r"[0-9a-f]{4}:[0-9a-g]{2}:[0-9a-f]{2}\.[0-9]", fullmatch=True),
    st.builds("{}-{}".format, st.integers(0, 99999), st.integers(0, 99999)),
    st.recursive(st.sampled_from(NUMBERS), lambda inner: st.lists(inner, max_size=4), max_leaves=8),
)
_nested = st.one_of(_values, st.builds(nested, st.integers(1, 5000)))
_json = st.one_of(_values, st.builds(Deep, st.integers(1, 50_000)))
_texts = st.one_of(
    _values, st.builds(lambda opener, levels: opener * levels, st.sampled_from(["[", '{"a":']), st.integers(1, 50_000))
)
INPUTS = {"depth": _nested, "JSON": _json, "JSON text": _texts}


def feed_reader(name):
    """Feed a reader its share of the inputs."""
    read, holds = READERS[name]

    def call(value):
        with contextlib.suppress(ValueError):
            assert holds(read(value))

    @inputs(share=len(READERS))
    @given(INPUTS.get(name, _values))
    def reads(value):
        within_bounds(lambda: value, call)

    reads()


def feed_decoder(name):
    """Feed a decoder its share of the inputs."""

    def call(raw):
        # A C decoder cannot recurse deeply. Reflectors set such an object aside.
        with contextlib.suppress(ValueError, RecursionError):
            DECODERS[name](raw)

    @inputs(share=len(DECODERS))
    @given(mutations([SEEDS[name]]))
    def decodes(document):
        within_bounds(lambda: msgspec.Raw(dump(document)), call)

    decodes()


@pytest.mark.parametrize("name", READERS)
def test_a_reader_refuses_junk_in_time(name):
    feed_reader(name)


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_refuses_junk_in_time(name):
    feed_decoder(name)
