"""Links of VFs while their PF is changed."""

import msgspec
import pytest

from tests.builders.host import pf, sim_host
from vmnic.host.ops import ReadLinks, SetChannels, SetLink
from vmnic.nodes.nics import nic_files, read_models

NAME, VF_LINK = "ens11", "ens11v0"


@pytest.fixture
def host():
    """Return a host with a VF whose link is up."""
    sim = sim_host(pf(vfs=2, vf_driver="igbvf"))
    sim.perform(SetLink(name=VF_LINK, up=True))
    return sim


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """Return a function that sets what keeps the links of the VFs of an 82576."""

    def set_kept(kept):
        (model,) = (one for one in read_models() if one.model == "82576")
        path = tmp_path / "nics.yaml"
        path.write_bytes(msgspec.json.encode([msgspec.to_builtins(model) | {"keepsVfLinks": kept}]))
        nic_files.add(path)

    yield set_kept
    nic_files.reset()


def carriers(sim, looks=3):
    """Return the carrier of the VF's link at some looks."""
    return [link.carrier for _ in range(looks) for link in sim.perform(ReadLinks()) if link.name == VF_LINK]


CHANGES = {
    "mtu": (SetLink(name=NAME, mtu=9000), ("mtu",)),
    "queues": (SetChannels(NAME, 1), ("queues",)),
}


@pytest.mark.parametrize(("change", "kept"), CHANGES.values(), ids=CHANGES)
def test_a_reset_of_the_pf_drops_the_links_of_its_vfs(host, keep, change, kept):
    told = []
    host.listen(told.append)
    host.perform(change)
    assert carriers(host) == [False, True, True]
    assert [event.link for event in told].count(VF_LINK) == 2
    # The link of the other VF is down.
    assert not any(event.link == "ens11v1" for event in told)


@pytest.mark.parametrize(("change", "kept"), CHANGES.values(), ids=CHANGES)
def test_a_model_may_keep_the_links_of_its_vfs(host, keep, change, kept):
    keep(kept)
    host.perform(change)
    assert carriers(host) == [True, True, True]


@pytest.mark.parametrize(
    "changes",
    [
        [SetLink(name=NAME, mtu=1500)],
        [SetLink(name=NAME, up=False), SetLink(name=NAME, mtu=9000), SetLink(name=NAME, up=True)],
        [SetLink(name=NAME, up=True)],
    ],
    ids=["the same mtu", "while the PF is down", "up again"],
)
def test_what_does_not_reset_the_pf_keeps_the_links(host, changes):
    for change in changes:
        host.perform(change)
    assert carriers(host) == [True, True, True]


def test_a_vf_has_no_carrier_without_that_of_its_pf(host):
    assert carriers(host, 1) == [True]
    host.perform(SetLink(name=NAME, up=False))
    assert carriers(host, 1) == [False]
