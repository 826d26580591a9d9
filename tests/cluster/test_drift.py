"""A manual change is detected by the host's notifications: an agent that hardly ever polls reverts it."""

import contextlib

import pytest
import urllib3

from tests.harness.api import wait_for
from vmnic.host.ops import ReadLink, ReadLinks, SetLink, WriteFile
from vmnic.host.socket import SocketPort

PF = "0000:0b:00.0"
VF = "/sys/bus/pci/devices/0000:0b:10.2"


@pytest.fixture
def host(cluster, pool):
    """A node with three VFs, whose agent polls every ten minutes, observed without the agent."""
    cluster.api.merge("Node", "n1", {"metadata": {"labels": {"drift": "here"}}})
    pool("drifting", nodeSelector={"drift": "here"}, numVfs=3, mtu=9000)
    wait_for("n1 is as asked", lambda: cluster.pf("n1").get("numVfs") == 3 and "plan" not in cluster.pf("n1"))
    cluster.processes.kill("agent-n1")
    cluster.start_agent("n1", observe_interval_s=600)
    wait_for("the next agent has looked", lambda: passes(cluster))
    port = SocketPort(cluster.socket("n1"))
    yield port
    port.close()
    cluster.processes.kill("agent-n1")
    cluster.start_agent("n1")


def passes(cluster):
    """Return how many passes the agent has made since its start."""
    with contextlib.suppress(urllib3.exceptions.HTTPError):
        told = dict(line.rsplit(" ", 1) for line in cluster.scrape("agent-n1").splitlines() if not line.startswith("#"))
        return float(told.get('vmnic_agent_pass_seconds_count{outcome="done"}', 0))
    return 0


def driver(host):
    try:
        return host.perform(ReadLink(f"{VF}/driver")).rsplit("/", 1)[-1]
    except FileNotFoundError:
        return ""


def mtu(host):
    return next(link.mtu for link in host.perform(ReadLinks()) if link.pci_address == PF)


def test_driver_and_mtu_changed_by_hand_are_restored(host):
    host.perform(WriteFile("/sys/bus/pci/drivers/vfio-pci/unbind", "0000:0b:10.2"))
    wait_for("its driver is back", lambda: driver(host) == "vfio-pci")
    name = next(link.name for link in host.perform(ReadLinks()) if link.pci_address == PF)
    host.perform(SetLink(name=name, mtu=1500))
    wait_for("its MTU is back", lambda: mtu(host) == 9000)
