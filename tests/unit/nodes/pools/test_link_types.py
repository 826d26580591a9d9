"""Pools of VFs never take a function whose link is no Ethernet link."""

import pytest

from tests.builders.node import PF, pf_spec, pf_status, pool
from vmnic.api.pool import PoolProblem
from vmnic.api.reasons import PfReason
from vmnic.cli.render import show_nodes
from vmnic.nodes.pools.match import find_link_refusals, matching_pfs, reported_refusals
from vmnic.nodes.rollout.ledger import PoolLedger
from vmnic.nodes.rollout.summary import summarise_pool

from .test_shares import node

OTHER = "0000:0c:00.0"
INFINIBAND = pf_status(link_type="infiniband")


@pytest.mark.parametrize("present", [(), (pf_spec(),)], ids=["new", "in the pool"])
@pytest.mark.parametrize(
    ("spec", "link_type", "taken"),
    [
        ({}, "infiniband", False),
        ({}, "772", False),
        ({}, "", True),
        ({"function": "Physical", "numVfs": None}, "infiniband", True),
        ({"management": "Adopt"}, "infiniband", False),
    ],
    ids=["InfiniBand", "another type", "Ethernet or unknown", "the whole function", "adopted VFs"],
)
def test_a_pool_of_vfs_takes_only_ethernet_links(spec, link_type, taken, present):
    found = matching_pfs(pool(**spec), {}, [pf_status(link_type=link_type)], present)
    assert [pf.pci_address for pf in found] == [PF] * taken


@pytest.mark.parametrize(
    ("selector", "matched", "reported"),
    [
        ({"models": ["82576"]}, True, False),
        ({"models": ["82576"]}, False, True),
        ({"vendors": ["8086"]}, True, False),
        ({"pciAddresses": [PF]}, True, True),
        ({"pfNames": ["ens1*"]}, True, True),
        ({"pfNames": ["ens2*"]}, False, False),
        ({"models": ["I350"]}, False, False),
    ],
    ids=[
        "a model that matched others", "a model that matched nothing else", "a vendor", "an address", "a name",
        "another name", "another model",
    ],
)  # fmt: skip
def test_a_pool_reports_a_function_that_it_names(selector, matched, reported):
    found = reported_refusals(find_link_refusals(pool(nicSelector=selector), "n1", {}, [INFINIBAND]), matched=matched)
    assert [(one.node, one.pci_address) for one in found] == [("n1", PF)] * reported
    assert all("is infiniband" in one.message for one in found)


def test_a_pool_of_other_nodes_reports_nothing():
    named = pool(nicSelector={"pciAddresses": [PF]}, nodeSelector={"rack": "b"})
    assert find_link_refusals(named, "n1", {"rack": "a"}, [INFINIBAND]) == ()


def test_a_pool_that_matches_nothing_says_why():
    why = PoolProblem(node="n1", pf=PF, reason=PfReason.LINK_TYPE_DIFFERS, message="the link is infiniband")
    status = summarise_pool(pool(), [], PoolLedger(), [], [why])
    ready = next(one for one in status.conditions if one.type == "Ready")
    assert (ready.reason, "n1: the link is infiniband" in ready.message) == ("NoNodesMatched", True)
    assert [one.reason for one in status.problems] == ["LinkTypeDiffers"]


def test_nodes_show_why_a_function_is_in_no_pool(capsys):
    show_nodes([node(pf_spec(OTHER), INFINIBAND)])
    assert "in no pool (LinkTypeDiffers: the link is infiniband" in capsys.readouterr().out
