"""Tables of what a change of datapath carries."""

import pytest

from vmnic.kubevirt.carried import CNI_HANDLED, CNI_PROPERTIES, INTERFACE_HANDLED, INTERFACE_SETTINGS, network_properties
from vmnic.kubevirt.networks import read_network

PLUGINS = {
    # containernetworking/plugins 1.7, main/bridge.
    "bridge": "bridge isGateway isDefaultGateway forceAddress ipMasq ipMasqBackend mtu hairpinMode promiscMode vlan "
    "preserveDefaultVlan vlanTrunk macspoofchk enabledad disableContainerInterface portIsolation",
    # containernetworking/plugins 1.7, main/macvlan and main/host-device.
    "macvlan": "master mode mtu linkInContainer",
    "host-device": "device hwaddr kernelpath pciBusID",
    # k8snetworkplumbingwg/sriov-cni 2.10.
    "sriov": "deviceID vlan vlanQoS vlanProto mac spoofchk trust link_state min_tx_rate max_tx_rate logLevel logFile",
    # kubevirt/macvtap-cni 0.13.
    "macvtap": "deviceID mtu promiscMode",
    # k8snetworkplumbingwg/ovs-cni 0.39.
    "ovs": "bridge vlan mtu trunk interface_type configuration_path socket_file link_state_check_retries link_state_check_interval "
    "ofport_request",
    "every": "cniVersion name type ipam dns args capabilities prevResult runtimeConfig disableCheck",
}


@pytest.mark.parametrize("plugin", PLUGINS)
def test_every_key_of_the_common_plugins_is_in_one_table(plugin):
    keys = set(PLUGINS[plugin].split())
    assert keys - CNI_HANDLED - set(CNI_PROPERTIES) == set()


def test_no_name_is_in_two_tables():
    assert CNI_HANDLED & set(CNI_PROPERTIES) == set()
    assert INTERFACE_HANDLED & set(INTERFACE_SETTINGS) == set()


@pytest.mark.parametrize("value", [None, False, "", 0, [], {}])
@pytest.mark.parametrize("key", [*CNI_PROPERTIES, "aKeyOfANewPlugin"])
def test_a_key_with_its_default_is_no_property(key, value):
    assert network_properties({key: value}, []) == {}


@pytest.mark.parametrize("key", [*CNI_PROPERTIES, "aKeyOfANewPlugin"])
def test_a_key_that_is_set_is_a_property(key):
    assert network_properties({key: "on"}, []) == {key: '"on"'}


@pytest.mark.parametrize("rates", [{}, {"ingressRate": 0, "egressRate": 0}, {"capabilities": {"bandwidth": True}}], ids=str)
def test_a_chained_bandwidth_without_a_rate_is_no_property(rates):
    assert network_properties({}, [{"type": "bandwidth", **rates}]) == {}


@pytest.mark.parametrize("name", ["a\n| b", "\x1b[31m", "k" * 10_000, "\u202e"], ids=ascii)
def test_a_hostile_name_is_shown_in_one_short_line(name):
    for found in (network_properties({name: True}, []), network_properties({}, [{"type": name}])):
        (shown,) = found
        assert (shown.isprintable(), len(shown) <= 63) == (True, True)


def test_a_word_that_the_size_limit_cuts_accepts_nothing():
    start = "PropertyNotCarried/bandwidth"
    text = "MtuDiffers," * 369 + " " * (4096 - 369 * 11 - len(start)) + start + "X"
    annotations = {"vmnic.dev/accept": text}
    found = read_network({"metadata": {"name": "n", "annotations": annotations}})
    assert (set(found.accepts), found.accept_fault.partition(" has ")[2][:15]) == ({"MtuDiffers"}, "4097 characters")


def test_vfs_follow_the_link_by_default():
    assert network_properties({"link_state": "auto"}, []) == {}
