"""NICs that a simulated host may have, and those that no host could have."""

import pytest

from tests.builders.host import OTHER_PF, PF, pf, sim_host
from vmnic.host.ops import ListDir, PutFile, ReadChannels, ReadFile, ReadLink, WriteFile
from vmnic.simhost.host import SimHost
from vmnic.simhost.spec import HostSpec, ImpossibleHostError, check_host, parse_host, profiles

PATH = f"/sys/bus/pci/devices/{PF}"


def refusal(host, op):
    try:
        host.perform(op)
    except OSError as error:
        return error.errno
    return 0


@pytest.mark.parametrize(
    "nic", [pf(profile="82574L"), pf(profile="RTL8125"), pf(sriov_off=True), pf(profile="E810", sriov_off=True)]
)
def test_a_function_without_sriov_has_no_file_of_it(nic):
    host = sim_host(nic)
    assert not [name for name in host.perform(ListDir(PATH)) if name.startswith("sriov")]
    assert refusal(host, ReadFile(f"{PATH}/sriov_totalvfs")) == refusal(host, WriteFile(f"{PATH}/sriov_numvfs", "1")) == 2


@pytest.mark.parametrize("profile", profiles())
def test_every_profile_is_bound_and_goes_to_vfio_pci_and_back(profile):
    host = sim_host(pf(profile=profile))
    driver = profiles()[profile].driver
    assert host.perform(ReadLink(f"{PATH}/driver")).endswith(f"/{driver}")
    host.perform(WriteFile(f"{PATH}/driver/unbind", PF))
    host.perform(WriteFile(f"{PATH}/driver_override", "vfio-pci"))
    host.perform(WriteFile("/sys/bus/pci/drivers_probe", PF))
    assert host.perform(ReadLink(f"{PATH}/driver")).endswith("/vfio-pci")
    host.perform(WriteFile(f"{PATH}/driver/unbind", PF))
    host.perform(WriteFile(f"{PATH}/driver_override", "\n"))
    host.perform(WriteFile("/sys/bus/pci/drivers_probe", PF))
    assert host.perform(ReadLink(f"{PATH}/driver")).endswith(f"/{driver}")


@pytest.mark.parametrize("profile", ["82574L", "RTL8125"])
def test_a_driver_without_channels_refuses_to_read_them(profile):
    assert refusal(sim_host(pf(profile=profile)), ReadChannels("ens11")) == 95


def test_num_vfs_creates_vfs_of_a_mlx4_nic_at_a_boot():
    host = sim_host(pf(profile="ConnectX-3"), pf(OTHER_PF, profile="82576"))
    host.perform(PutFile("/etc/modprobe.d/x.conf", "options mlx4_core num_vfs=3\noptions igb num_vfs=2\n"))
    host.control({"reboot": None})
    numbers = [host.perform(ReadFile(f"/sys/bus/pci/devices/{one}/sriov_numvfs")).strip() for one in (PF, OTHER_PF)]
    assert numbers == ["3", "0"]


@pytest.mark.parametrize("profile", ["I350", "X710", "E810", "ConnectX-6 Dx"])
def test_ports_of_one_nic_have_vfs_of_their_own(profile):
    ports = [f"0000:89:00.{port}" for port in range(2)]
    spec = HostSpec(pfs=tuple(pf(one, profile=profile, name=f"eno{one[-1]}", vfs=7) for one in ports))
    check_host(spec)
    host = SimHost(spec)
    paths = [f"/sys/bus/pci/devices/{one}/virtfn{index}" for one in ports for index in range(7)]
    assert len({host.perform(ReadLink(path)) for path in paths}) == 14


@pytest.mark.parametrize(
    ("pfs", "words"),
    [
        ("{address: '0000:89:00.8', profile: I350, name: a}", "with function 0 to 7"),
        ("{address: '89:00.3', profile: I350, name: a}", "0000:0b:00.0"),
        ("{address: '0000:89:00.3', profile: 82574L, name: a, vfs: 1}", "supports 0"),
        ("{address: '0000:89:00.3', profile: I350, name: a, vfs: 1, sriovOff: true}", "supports 0"),
        (
            "{address: '0000:89:00.0', profile: '82576', name: a}, {address: '0000:89:00.2', profile: '82576', name: b}",
            "in the place of those of 0000:89:00.0",
        ),
    ],
)
def test_an_impossible_nic_is_refused_with_its_address(pfs, words):
    with pytest.raises(ImpossibleHostError, match=words):
        parse_host(f"pfs: [{pfs}]")


def test_four_ports_whose_vfs_have_room_are_a_possible_nic():
    ports = ", ".join(f"{{address: '0000:89:00.{port}', profile: I350, name: a{port}}}" for port in range(4))
    assert len(parse_host(f"pfs: [{ports}]").pfs) == 4
