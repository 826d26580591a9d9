"""Kernel modules that are loaded, built in, missing, refused or unknown."""

import errno

import pytest

from tests.builders.agent import Node, desired
from tests.builders.host import pf, sim_host
from tests.harness.faults import Fault, When
from vmnic.api.reasons import PfReason
from vmnic.host.ops import ListDir, LoadModule, ReadFile
from vmnic.inspection.modules import MODULES, load_modules, refused_modules

NICS = ("igb", "igbvf")
WANTED = ("vhost_net", "tun", "macvtap")


def node_with(tmp_path, *, loaded=(), built_in=(), **changes):
    return Node(sim_host(pf(), modules=(*NICS, *loaded), built_in_modules=built_in, **changes), tmp_path)


async def degraded(node):
    """Return the condition Degraded of a node that needs the modules of all datapaths."""
    node.api.ask(desired(), modules=WANTED)
    conditions = (await node.agent.run(node.api.state)).conditions
    return next(one for one in conditions if one.type == "Degraded")


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("is_built_in", [False, True], ids=["loaded", "built in"])
async def test_a_module_is_there_whether_loaded_or_built_in(tmp_path, name, is_built_in):
    node = node_with(tmp_path, **({"built_in": (name,)} if is_built_in else {"loaded": (name,)}))
    assert (await node.agent.run(node.api.state)).host.modules == (name,)


async def test_a_kernel_with_built_in_tun_and_macvtap_is_healthy(tmp_path):
    node = node_with(tmp_path, loaded=("vhost_net", "vfio_pci"), built_in=("tun", "macvtap"))
    assert (await degraded(node)).status == "False"


async def test_a_module_that_is_not_there_is_missing(tmp_path):
    found = await degraded(node_with(tmp_path, loaded=("vfio_pci",)))
    assert (found.reason, "vhost_net and tun and macvtap" in found.message) == (PfReason.MODULE_MISSING, True)


def forbid(node, op):
    node.port.faults.append(Fault(when=When.ERRNO, errno=errno.EACCES, matches=lambda one: one == op))


async def test_a_module_that_cannot_be_seen_is_unknown_and_not_missing(tmp_path):
    node = node_with(tmp_path, loaded=("vfio_pci", "vhost_net"))
    forbid(node, ReadFile("/proc/misc"))
    forbid(node, ListDir("/sys/class/macvtap"))
    assert (await degraded(node)).status == "False"
    assert node.api.state.status.host.modules_unknown == ("tun", "macvtap")


async def test_vfs_for_vms_wait_while_vfio_pci_is_unknown(tmp_path):
    node = node_with(tmp_path)
    forbid(node, ListDir("/sys/bus/pci/drivers/vfio-pci"))
    node.api.ask(desired())
    problem = (await node.run_pass()).problem
    assert (problem.reason, "make both readable" in problem.message) == (PfReason.MODULE_MISSING, True)


def test_a_built_in_module_is_not_refused_without_its_index(tmp_path):
    node = node_with(tmp_path, built_in=("tun", "macvtap"))
    for name in ("tun", "macvtap", "vhost_net"):
        matches = lambda op, name=name: op == LoadModule(name)  # noqa: E731
        node.port.faults.append(Fault(when=When.ERRNO, errno=errno.ENOENT, matches=matches))
    load_modules(node.port, WANTED, tmp_path)
    (refused,) = refused_modules(tmp_path)
    assert refused.startswith("vhost_net: ENOENT")
