"""Facts about NIC models: their file, what users add to it, and the PCI IDs against the public list."""

import pathlib
import re

import pytest

from vmnic.checked.data_files import DataFileError
from vmnic.nodes.nics import known_names, model_of, models_of, nic_files, read_models

PCI_IDS = pathlib.Path("/usr/share/misc/pci.ids")
"""From the Debian package pci.ids."""

_IXGBE, _ICE = "ixgbe_type_e610.h of Linux", "ice_devids.h of Linux"
_BNXT, _IDPF, _IGB = "bnxt_pci_tbl of Linux", "idpf_main.c of Linux", "e1000_hw.h and igbvf of Linux"
YOUNGER = {
    ("8086", "57ae"): _IXGBE, ("8086", "57af"): _IXGBE, ("8086", "57b0"): _IXGBE, ("8086", "57b2"): _IXGBE,
    ("8086", "57ad"): _IXGBE, ("8086", "579f"): _ICE, ("8086", "12d1"): _ICE, ("8086", "12d2"): _ICE, ("8086", "12d3"): _ICE,
    ("8086", "12d4"): _ICE, ("8086", "12d5"): _ICE, ("8086", "12d8"): _ICE, ("8086", "12da"): _ICE, ("8086", "12dc"): _ICE,
    ("8086", "12dd"): _ICE, ("8086", "12de"): _ICE, ("8086", "1452"): _IDPF, ("8086", "145c"): _IDPF, ("8086", "1546"): _IGB,
    ("8086", "152d"): _IGB, ("14e4", "1760"): _BNXT, ("14e4", "1761"): _BNXT, ("14e4", "1762"): _BNXT,
    ("14e4", "1763"): _BNXT, ("14e4", "1819"): _BNXT,
}  # fmt: skip
"""IDs that the list of April 2023 does not have, and where they are from."""


@pytest.fixture(autouse=True)
def own_data_only():
    yield
    nic_files.reset()


@pytest.fixture
def add(tmp_path):
    def add(text):
        (tmp_path / "nics.yaml").write_text(text)
        nic_files.add(tmp_path / "nics.yaml")

    return add


def read_pci_ids(text):
    """Return the names of a pci.ids file by vendor and device."""
    names, vendor = {}, ""
    for line in text.splitlines():
        if found := re.match(r"([0-9a-f]{4})  (.*)", line):
            vendor = found[1]
        elif found := re.match(r"\t([0-9a-f]{4})  (.*)", line):
            names[vendor, found[1]] = found[2]
        elif line.startswith("C "):
            break
    return names


def faults(models, names):
    """Return what a list of names contradicts in NIC data."""
    found = []
    for nic in models:
        for device in (*nic.pf, *nic.vf):
            name = names.get((nic.vendor, device))
            if name is None and (nic.vendor, device) not in YOUNGER:
                found.append(f"{nic.vendor}:{device} of {nic.model} is in no list")
            is_vf = name is not None and re.search(r"\bVF\b|Virtual Function", name) is not None
            if name is not None and device in nic.pf and is_vf:
                found.append(f"{nic.vendor}:{device} of {nic.model} is a VF: {name}")
    return found


SAMPLE = (
    "8086  Intel\n\t10c9  82576 Gigabit\n\t10ca  82576 Virtual Function\n\t\t1028 0001  Card\nC 02  Network\n\t10e6  Ethernet\n"
)


@pytest.mark.parametrize(
    ("pf", "vf", "expected"),
    [
        ("10c9", "10ca", []),
        ("10ca", "10c9", ["8086:10ca of X is a VF: 82576 Virtual Function"]),
        ("10e6", "10ca", ["8086:10e6 of X is in no list"]),
    ],
)
def test_the_check_against_pci_ids_finds_wrong_ids(add, pf, vf, expected):
    add(f'- {{model: X, vendor: "8086", pf: ["{pf}"], vf: ["{vf}"], driver: x}}')
    assert faults(read_models()[:1], read_pci_ids(SAMPLE)) == expected


def test_ids_agree_with_pci_ids_where_it_is_installed():
    models = read_models()
    text = PCI_IDS.read_text(errors="replace") if PCI_IDS.exists() else ""
    # Without the package, only the list of younger ids is checked for leftovers.
    ids = {(nic.vendor, device) for nic in models for device in (*nic.pf, *nic.vf)}
    assert (set(YOUNGER) - ids, faults(models, read_pci_ids(text)) if text else []) == (set(), [])


@pytest.mark.parametrize(
    ("ids", "driver", "names", "limit"),
    [
        ("8086:154d", "ixgbe", ("82599", "X520"), 63),
        ("8086:10fb", "", ("82599", "X520"), 63),
        ("8086:37d2", "i40e", ("X722",), 128),
        ("8086:188d", "ice", ("E823",), 256),
        ("14e4:16d7", "bnxt_en", ("BCM57414",), None),
        ("15b3:1003", "mlx4_core", ("ConnectX-3",), None),
        ("15b3:1023", "mlx5_core", ("ConnectX-8",), None),
        ("8086:10d3", "e1000e", ("82574L",), None),
    ],
)
def test_a_model_is_found_by_its_ids(ids, driver, names, limit):
    model = model_of(*ids.split(":"), driver)
    assert (model.names, model.max_vfs) == (names, limit)


def test_a_driver_stands_for_ids_that_no_entry_lists(add):
    add("- {driver: ixgbe, maxVfs: 5}\n- {driver: sfc, vendor: '1924', vfGuests: [linux, windows]}")
    assert model_of("8086", "ffff", "ixgbe").max_vfs == 5
    assert model_of("8086", "10fb", "ixgbe").max_vfs == 63
    assert (model_of("1924", "ffff", "sfc").driver, model_of("10ee", "ffff", "sfc")) == ("sfc", None)
    assert model_of("8086", "ffff") is None


def test_an_alias_is_a_name_of_the_model(add):
    add('- {model: X, aliases: [X520, Z9], vendor: "8086", pf: ["0001"], driver: x}')
    assert [nic.model for nic in models_of("X520")] == ["X", "82599"]
    assert {"X", "Z9", "X520", "82599"} <= known_names()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{driver: x, vfsBy: module}", r"vfsBy is replaced by countBy \(sysfs or parameter\) and parameter .* `\$\[0\].vfsBy`"),
        ("{driver: x, maxVFs: 7}", r"unknown column, known are .*maxVfs.* `\$\[0\].maxVFs`"),
        ("{driver: x, countBy: parameter}", "needs parameter: max_vfs or num_vfs"),
        ("{driver: x, parameter: vfs}", r"`\$\[0\].parameter`"),
        ("{driver: x, pf: ['0001']}", "needs model and vendor"),
        ("{driver: x, maxVfsPer: Port}", r"`\$\[0\].maxVfsPer`"),
        ("{model: x}", "missing required field `driver`"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_place_and_remedy(add, entry, words):
    with pytest.raises(DataFileError, match=words):
        add(f"- {entry}")


@pytest.mark.parametrize("driver", ["igb", "ixgbe", "mlx4_core"])
def test_drivers_with_a_parameter_have_it_in_every_entry(driver):
    own = [nic for nic in read_models() if nic.driver == driver and nic.has_vfs]
    assert {nic.parameter for nic in own} == {"num_vfs" if driver == "mlx4_core" else "max_vfs"}
    assert {nic.parameter for nic in read_models() if nic.driver not in ("igb", "ixgbe", "mlx4_core")} == {None}
