"""Every checked reader and every projection: junk gives a value or a ValueError, within bounds."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmnic.checked.devices import is_pci_address, read_vf_range
from vmnic.checked.documents import check_depth, read_json
from vmnic.checked.quantities import LARGEST, read_integer, read_quantity
from vmnic.controller.objects import decode_labelled, decode_node, decode_policy, decode_pool, decode_webhooks
from vmnic.kubevirt.configuration import decode_kubevirt, kubevirt_facts
from vmnic.kubevirt.instances import decode_instance
from vmnic.kubevirt.networks import decode_network
from vmnic.kubevirt.projection import decode_instancetype, decode_machine, decode_preference, decode_quota, salvage_machine
from vmnic.kubevirt.quota import quota_left, unreadable_quota
from vmnic.kubevirt.record import assignments, parse_record
from vmnic.kubevirt.state import decode_vm_state
from vmnic.nodes.networks import decode_own_network
from vmnic.nodes.state import decode_node_state

from .bounds import within_bounds
from .junk import NUMBERS, TEXTS, Deep, dump, mutations
from .scene import OBJECTS, RECORD
from .settings import inputs

READERS = {
    "quantity": read_quantity,
    "integer": lambda value: read_integer(value, -LARGEST, LARGEST),
    "VF range": lambda value: read_vf_range(str(value)),
    "PCI address": is_pci_address,
    "depth": lambda value: check_depth(value, 32),
    "JSON": lambda value: read_json(dump(value), object, max_bytes=2**18),
    "JSON text": lambda value: read_json(str(value).encode("utf-8", "replace"), object, max_bytes=2**18),
}
DECODERS = {
    "virtualmachines": decode_machine,
    "virtualmachines salvaged": salvage_machine,
    "virtualmachineinstances": decode_instance,
    "virtualmachineclusterpreferences": decode_preference,
    "virtualmachineclusterinstancetypes": decode_instancetype,
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
REFUSALS = (ValueError, RecursionError)
"""What a reflector sets aside in any case; everything else is a fault of the reader."""

_values = st.one_of(
    st.sampled_from(NUMBERS + TEXTS),
    st.text(st.sampled_from("0123456789eE+-.numkKMGTPEi \x00é\u0661"), max_size=80),
    st.recursive(st.sampled_from(NUMBERS), lambda inner: st.lists(inner, max_size=4), max_leaves=8),
)


@pytest.mark.parametrize("name", READERS)
def test_a_reader_refuses_junk_in_time(name):
    @inputs(share=len(READERS))
    @given(_values if name != "JSON" else st.one_of(_values, st.builds(Deep, st.integers(1, 50_000))))
    def reads(value):
        within_bounds(lambda: value, accepted(READERS[name]))

    reads()


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_refuses_junk_in_time(name):
    @inputs(share=len(DECODERS))
    @given(mutations([OBJECTS[name.partition(" ")[0]]]))
    def decodes(document):
        within_bounds(lambda: msgspec.Raw(dump(document)), accepted(DECODERS[name]))

    decodes()


@inputs(share=4)
@given(mutations([msgspec.json.decode(RECORD)]))
def test_a_record_of_junk_is_read_in_time(document):
    text = dump(document).decode()
    within_bounds(lambda: text, lambda text: assignments(parse_record(text)))


def accepted(reader):
    """Call a reader whose refusals are no faults."""

    def call(value):
        with contextlib.suppress(*REFUSALS):
            reader(value)

    return call
