"""Junk on a node.

For any answer of a file or device, a pass of the agent ends with a status that fits its bounds.
"""

import asyncio
import contextlib
import itertools
import pathlib
import tempfile

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.agent import Node, RecordingDevices, desired
from tests.builders.host import OTHER_PF, PF, pf, sim_host
from vmnic.agent.journal import JournalError, JournalStore
from vmnic.api.node_state import NodeNicState, NodeStatus, wire
from vmnic.host.events import link_events, pci_events
from vmnic.inspection.holder_files import _devices
from vmnic.inspection.keyfile import parse_keyfile
from vmnic.inspection.modules import refused_modules
from vmnic.nodes.bounds import fit
from vmnic.nodes.observed import observed_of
from vmnic.nodes.pools.shares import count_vfs, pool_shares
from vmnic.nodes.state import decode_node_state, decode_own_state

from .bounds import within_bounds
from .junk import NUMBERS, TEXTS, dump, mutations
from .scene import OBJECTS
from .settings import inputs

_answers = st.sampled_from(
    [*map(str, NUMBERS), *TEXTS, ["x"] * 1000, ["../.."], [], OSError(5, "Input/output error"), OSError(13, "denied")]
)
_words = st.one_of(st.sampled_from(TEXTS), st.text(st.sampled_from('[]=;#\n \\"{}:ab01\x00'), max_size=200))
JOURNAL = {"version": 1, "pfs": {PF: {"attempt": 1, "boot": "b", "original": {"num_vfs": 0}}}}


def answering(node, place, answer):
    """Replace the answer to one read of a pass, and return the number of reads."""
    perform, numbers = node.port.perform, itertools.count()

    def changed(op):
        found = perform(op)
        if type(op).__name__.startswith(("Read", "List", "Get")) and next(numbers) == place:
            if isinstance(answer, Exception):
                raise answer
            # vmnic's own adapter creates links. The content of files and the names in directories are foreign.
            is_names = isinstance(answer, list) and isinstance(found, list) and all(isinstance(one, str) for one in found)
            return answer if is_names or (isinstance(answer, str) and isinstance(found, str)) else found
        return found

    node.port.perform = changed


@inputs(share=8)
@given(st.integers(0, 80), _answers)
def test_a_pass_of_the_agent_ends_for_any_answer_to_a_read(place, answer):
    with tempfile.TemporaryDirectory() as directory:

        def make():
            node = Node(sim_host(pf(PF), pf(OTHER_PF)), pathlib.Path(directory))
            node.devices = RecordingDevices()
            node.restart_agent()
            node.api.ask(desired(), desired(OTHER_PF))
            answering(node, place, answer)
            return node

        def run(node):
            try:
                return asyncio.run(node.agent.run(node.api.state))
            except OSError:
                # The loop reports the node as unreadable if a value that is read once for the whole node, such as the boot
                # ID, is malformed.
                assert isinstance(answer, OSError)
                return NodeStatus()

        status = within_bounds(make, run)
    raw = msgspec.json.encode({"metadata": {"name": "n1"}, "status": wire(fit(status)[0])})
    assert decode_node_state(raw).unreadable == ""


@inputs(share=4)
@given(_words)
def test_files_of_junk_are_parsed_or_refused(text):
    def read(text):
        with contextlib.suppress(ValueError):
            parse_keyfile(text, most_chars=2**18)
        list(_devices(text))
        list(pci_events(text.encode("utf-8", "replace")))
        list(link_events(text.encode("utf-8", "replace")))

    within_bounds(lambda: text, read)


@inputs(share=4)
@given(mutations([JOURNAL, ["a"]]))
def test_state_files_of_junk_are_parsed_or_refused(document):
    raw = dump(document)
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory)
        (path / "journal.json").write_bytes(raw)
        (path / "modules.json").write_bytes(raw)

        def load(path):
            with contextlib.suppress(JournalError):
                JournalStore(path).load()
            refused_modules(path)

        within_bounds(lambda: path, load)


@inputs(share=4)
@given(mutations([OBJECTS["nodenicstates"]]))
def test_a_state_of_junk_is_counted(document):
    raw = dump(document)

    def count(raw):
        for decode in (decode_node_state, decode_own_state):
            try:
                state = decode(raw)
            except (ValueError, RecursionError):
                continue
            assert isinstance(state, NodeNicState)
            list(pool_shares(state, "fast"))
            count_vfs(state, "fast")
            for one in state.status.pfs:
                observed_of(one)
            assert isinstance(fit(state.status)[0], NodeStatus)

    within_bounds(lambda: raw, count)
