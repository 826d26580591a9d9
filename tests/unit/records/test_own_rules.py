"""vmnic's own files of udev rules in records."""

import asyncio

import pytest

from tests.builders.host import OTHER_PF, PF, pf, sim_host
from tests.builders.node import pool
from vmnic.cli.objects import Objects
from vmnic.cli.recorded import plan_recorded
from vmnic.host.client import LocalHost
from vmnic.host.ops import WriteFile
from vmnic.inspection.host_snapshot import read_snapshot
from vmnic.nodes.udev_rules import file_of, replace_rule
from vmnic.records.document import parse_record, write_record
from vmnic.records.record import RecordError, to_record
from vmnic.records.recorded_host import RecordedHost
from vmnic.records.recorder import record_host

CHANGED = f'SUBSYSTEM=="net", KERNELS=="{PF}", ATTR{{device/sriov_numvfs}}="5", RUN+="/bin/x"\n'
FOREIGN = f'SUBSYSTEM=="net", KERNELS=="{PF}", ATTR{{device/sriov_numvfs}}="2"\n'


def rules_of(pool_name, *rules):
    text = ""
    for address, rule in rules:
        text = replace_rule(text, address, pool_name, rule)
    return {file_of(pool_name): text}


def host_with(files):
    sim = sim_host(pf(PF), pf(OTHER_PF))
    for path, text in files.items():
        sim.control({"put_file": {"path": path, "text": text}})
    return sim


def recorded(host):
    record = asyncio.run(record_host(LocalHost(host), "n1", {}))
    return parse_record(write_record(record), "n1.yaml")


def seen_rules(host):
    snapshot = asyncio.run(read_snapshot(LocalHost(host), leave_out=()))
    return {one.pci_address: (one.udev_rules, one.foreign_owner) for one in snapshot.pfs}


FILES = {
    "one rule": rules_of("fast", (PF, "igb 7")),
    "without autoprobe": rules_of("fast", (PF, "igb 7 0")),
    "any driver": rules_of("fast", (PF, "?* 3 0")),
    "several functions": rules_of("fast", (PF, "igb 7 0"), (OTHER_PF, "igb 2")),
    "several pools": rules_of("fast", (PF, "igb 7")) | rules_of("so.slow-2", (PF, "igb 3 0"), (OTHER_PF, "igb 1")),
    "changed by a person": {file_of("fast"): CHANGED},
    "changed beside another": {file_of("fast"): CHANGED + rules_of("fast", (OTHER_PF, "igb 2"))[file_of("fast")]},
    "another owner too": rules_of("fast", (OTHER_PF, "igb 7")) | {"/etc/udev/rules.d/60-vfs.rules": FOREIGN},
    "none": {},
}


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_a_recorded_host_has_the_rules_of_the_real_one(files):
    host = host_with(files)
    record = recorded(host)
    assert seen_rules(RecordedHost(record)) == seen_rules(host)
    assert recorded(RecordedHost(record)).owners == record.owners


@pytest.mark.parametrize(("rule", "plans"), [("igb 7 0", False), ("igb 6 0", True), ("ixgbe 7 0", True)])
def test_a_plan_compares_the_recorded_rule(rule, plans):
    host = host_with(rules_of("fast", (PF, rule)))
    host.perform(WriteFile(f"/sys/bus/pci/devices/{PF}/sriov_numvfs", "7"))
    objects = Objects()
    objects.pools["fast"] = pool("fast", persistence="Udev", nicSelector={"pciAddresses": [PF]})
    objects.host_records["n1"] = recorded(host)
    made = plan_recorded(objects)
    assert not made.set_aside
    actions = [action for rows in made.rows.values() for _, row in rows for action in row["actions"]]
    assert any("udev" in action for action in actions) is plans, actions


@pytest.mark.parametrize(
    "rules",
    [{"fast": ["x"]}, {"fast": [f"{PF} igb"]}, {"fast": [f"{PF} igb 7 1"]}, {"fast": [f'{PF} "x 7']}, {"../x": []}, {"": []}],
    ids=str,
)
def test_a_rule_that_vmnic_would_not_write_is_refused(rules):
    document = {"apiVersion": "cli.vmnic.dev/v1alpha1", "kind": "HostRecord", "metadata": {"name": "n1"}}
    with pytest.raises(RecordError, match="ownUdevRules"):
        to_record(document | {"owners": {"ownUdevRules": rules}})
