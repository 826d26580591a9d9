"""`kubectl vmnic drain-plan`: what a drain of a node does to its VMs."""

import copy
import json

import pytest
from pydantic import TypeAdapter

from tests.builders.decide import collect
from tests.builders.maintenance import BASE, FAST, host, running
from tests.builders.vm import kubevirt, nic, vm
from tests.unit.cli.test_plan import documents, run
from vmnic.cli.drain import is_disruptive, is_known, make_drain_plan
from vmnic.cli.live import load_live
from vmnic.cli.offline import decide_all
from vmnic.cli.render import show_drain_plan
from vmnic.cli.schema import DrainPlan

RACK = {"nodeSelector": {"rack": "a"}}
PINNED = {
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "rack", "operator": "In", "values": ["a"]}]}]
            }
        }
    }
}
TAINT = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}
TOLERANT = {"tolerations": [{"key": "dedicated", "operator": "Equal", "value": "db", "effect": "NoSchedule"}]}


def plan_of(*documents, offline=True):
    objects = collect(*documents)
    made = make_drain_plan("n1", objects, decide_all(objects, offline=offline), [], offline=offline)
    return TypeAdapter(DrainPlan).validate_python(made)


def outcomes(*documents, offline=True):
    return {one["name"]: (one["outcome"], one["node"]) for one in plan_of(*documents, offline=offline)["vms"]}


def only(*documents):
    (found,) = plan_of(*documents)["vms"]
    return found


@pytest.mark.parametrize(
    ("options", "cluster", "outcome"),
    [
        ({"strategy": "LiveMigrate"}, None, "LosesLink"),
        ({"strategy": "LiveMigrate", "vfs": 0}, None, "Migrates"),
        ({"strategy": "LiveMigrate", "migratable": False}, None, "Blocks"),
        ({"strategy": "LiveMigrate", "migratable": None}, None, "Unknown"),
        ({"strategy": "LiveMigrate", "migratable": None, "devices": ["gpu"]}, None, "Blocks"),
        ({"strategy": "LiveMigrateIfPossible"}, None, "LosesLink"),
        ({"strategy": "LiveMigrateIfPossible", "migratable": False}, None, "Stopped"),
        ({"strategy": "LiveMigrateIfPossible", "migratable": None}, None, "Unknown"),
        ({"strategy": "LiveMigrateIfPossible", "migratable": None, "devices": ["gpu"]}, None, "Stopped"),
        ({"strategy": "External"}, None, "Blocks"),
        ({"strategy": "None"}, "LiveMigrate", "Stopped"),
        ({"strategy": "Later"}, None, "Unknown"),
        ({"strategy": "External"}, "LiveMigrate", "Blocks"),
        ({"strategy": "LiveMigrate"}, "None", "LosesLink"),
        ({}, None, "Stopped"),
        ({}, "None", "Stopped"),
        ({}, "External", "Blocks"),
        ({}, "Later", "Unknown"),
        ({}, "LiveMigrate", "LosesLink"),
        ({}, "LiveMigrateIfPossible", "LosesLink"),
        ({"strategy": "LiveMigrateIfPossible", "migratable": False}, "LiveMigrate", "Stopped"),
    ],
)
def test_strategy_and_migratability_decide(options, cluster, outcome):
    settings = {"evictionStrategy": cluster} if cluster else {}
    cluster_objects = (kubevirt(**settings), *BASE[1:])
    assert only(*cluster_objects, *host("n1"), *host("n2"), *running("db", **options))["outcome"] == outcome


@pytest.mark.parametrize(
    ("spec", "outcome", "words"),
    [
        ({"gpus": [{"name": "a100", "deviceName": "gpu.example/a"}]}, "Blocks", "host device a100"),
        ({"volumes": [{"name": "disk", "hostDisk": {"path": "/a"}}]}, "Blocks", "host disk disk"),
        ({"volumes": [{"name": "disk", "hostDisk": {"path": "/a", "shared": True}}]}, "Unknown", "LiveMigratable"),
        ({"volumes": [{"name": "disk", "persistentVolumeClaim": {"claimName": "a"}}]}, "Unknown", "LiveMigratable"),
    ],
    ids=["GPU", "host disk", "shared host disk", "claim"],
)
def test_without_a_condition_the_devices_tell_what_is_known(spec, outcome, words):
    machine, instance = running("db", strategy="LiveMigrate", migratable=None)
    template = instance["spec"]
    template["domain"]["devices"]["gpus"] = spec.get("gpus", [])
    template["volumes"] = spec.get("volumes", [])
    found = only(*BASE, *host("n1"), *host("n2"), machine, instance)
    assert (found["outcome"], words in found["message"]) == (outcome, True)


@pytest.mark.parametrize("reason", ["DisksNotLiveMigratable", "SEVNotLiveMigratable", "CPUModeNotLiveMigratable"])
def test_the_reason_of_kubevirt_is_told(reason):
    machine, instance = running("db", strategy="LiveMigrate", vfs=0)
    instance["status"]["conditions"][0] |= {"status": "False", "reason": reason, "message": "not shared"}
    found = only(*BASE, *host("n1"), *host("n2"), machine, instance)
    assert (found["outcome"], f"{reason}: not shared" in found["message"]) == ("Blocks", True)


@pytest.mark.parametrize("kind", ["Node", "NodeNicState", "VirtualMachineInstance", "NetworkAttachmentDefinition"])
@pytest.mark.parametrize("is_refused", [True, False], ids=["refused", "unreadable"])
def test_a_drain_without_a_deciding_kind_is_disruptive(kind, is_refused):
    given = [*BASE, *host("n1"), *host("n2"), *running("db", strategy="LiveMigrate")]
    assert not is_disruptive(plan_of(*given, offline=False))
    objects = collect(*(one for one in given if one["kind"] != kind))
    if is_refused:
        objects.refused[kind] = "you may not read it"
    for one in given if not is_refused else ():
        if one["kind"] == kind:
            load_live(objects, one | {"spec": 5, "status": 5})
    made = make_drain_plan("n1", objects, decide_all(objects, offline=False), [], offline=False)
    assert is_disruptive(made)
    assert [one["object"].partition("/")[0] for one in made["problems"]][:1] == [kind]


def test_an_instance_without_a_node_names_no_node():
    _, instance = running("db", "")
    assert not is_known(collect(instance), "")


def test_without_instances_each_vm_may_run_on_the_node():
    objects = collect(*BASE, *host("n1"), vm("web"), vm("off", run_strategy="Halted"))
    objects.refused["VirtualMachineInstance"] = "you may not read virtualmachineinstances"
    found = make_drain_plan("n1", objects, decide_all(objects, offline=False), [], offline=False)["vms"]
    assert [(one["name"], one["outcome"]) for one in found] == [("web", "Unknown")]
    assert "you may not read virtualmachineinstances" in found[0]["message"]


@pytest.mark.parametrize(
    "change",
    [
        lambda instance, text: instance["metadata"].update(ownerReferences=[{"kind": "VirtualMachine", "name": text}]),
        lambda instance, text: instance["spec"].update(evictionStrategy=text),
        lambda instance, text: instance["status"]["conditions"][0].update(status="False", message=text),
        lambda instance, text: instance["spec"]["networks"][0].update(name=text),
    ],
    ids=["owner", "strategy", "message", "network"],
)
def test_long_and_hostile_text_of_an_instance_is_cut(change, capsys):
    _, instance = copy.deepcopy(running("db", strategy="LiveMigrate"))
    change(instance, "\x1b[2J\n[red]" * 1000)
    plan = plan_of(*BASE, *host("n1"), *host("n2"), instance)
    show_drain_plan(plan)
    shown = capsys.readouterr().out
    assert ("\x1b" in shown, len(json.dumps(plan)) < 6000, "tenants/" in shown) == (False, True, True)


def test_without_a_kubevirt_resource_its_strategy_is_unknown():
    found = only(*BASE[1:], *host("n1"), *host("n2"), *running("db"))
    assert (found["outcome"], "KubeVirt resource" in found["message"]) == ("Unknown", True)


@pytest.mark.parametrize(("strategy", "outcome"), [(None, "Unknown"), ("LiveMigrate", "LosesLink")])
@pytest.mark.parametrize("is_refused", [True, False], ids=["refused", "unreadable"])
def test_an_unread_kubevirt_resource_matters_without_a_strategy(is_refused, strategy, outcome):
    objects = collect(*BASE[1:], *host("n1"), *host("n2"), *running("db", strategy=strategy))
    if is_refused:
        objects.refused["KubeVirt"] = "you may not read kubevirts"
    else:
        load_live(objects, BASE[0] | {"spec": 5})
    made = make_drain_plan("n1", objects, decide_all(objects, offline=False), [], offline=False)
    assert made["vms"][0]["outcome"] == outcome


def test_the_instance_counts_and_not_the_changed_template():
    machine, instance = running("db", strategy="LiveMigrate")
    changed = json.loads(json.dumps(machine))
    changed["spec"]["template"]["spec"] |= {"evictionStrategy": "None", "nodeSelector": {"rack": "nowhere"}}
    assert outcomes(*BASE, *host("n1"), *host("n2"), changed, instance) == {"db": ("LosesLink", "n2")}


@pytest.mark.parametrize(
    ("options", "second", "outcome"),
    [
        ({}, host("n2"), ("LosesLink", "n2")),
        ({"vfs": 2}, host("n2", vfs=1), ("Blocks", None)),
        ({}, host("n2", unschedulable=True), ("Blocks", None)),
        ({}, host("n2", vfs=1, held={0: "pod tenants/other"}), ("Blocks", None)),
        (RACK, host("n2", labels={"rack": "a"}), ("LosesLink", "n2")),
        (RACK, host("n2", labels={"rack": "b"}), ("Blocks", None)),
        (PINNED, host("n2", labels={"rack": "a"}), ("LosesLink", "n2")),
        (PINNED, host("n2", labels={"rack": "b"}), ("Blocks", None)),
        ({}, host("n2", taints=[TAINT]), ("Blocks", None)),
        ({}, host("n2", taints=[TAINT | {"effect": "PreferNoSchedule"}]), ("LosesLink", "n2")),
        (TOLERANT, host("n2", taints=[TAINT]), ("LosesLink", "n2")),
        ({"tolerations": [{"operator": "Exists"}]}, host("n2", taints=[TAINT]), ("LosesLink", "n2")),
        ({"tolerations": [{"key": "dedicated", "value": "web"}]}, host("n2", taints=[TAINT]), ("Blocks", None)),
        ({"tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoExecute"}]}, host("n2", taints=[TAINT]), ("Blocks", None)),
        ({"vfs": 0, **RACK}, host("n2", labels={"rack": "b"}), ("Blocks", None)),
        ({"vfs": 0}, host("n2", taints=[TAINT]), ("Blocks", None)),
        ({"vfs": 0}, host("n2"), ("Migrates", None)),
    ],
)  # fmt: skip
def test_a_vm_migrates_only_where_it_fits(options, second, outcome):
    found = outcomes(*BASE, *host("n1"), *second, *running("db", strategy="LiveMigrate", **options))
    assert found == {"db": outcome}


def test_all_vms_are_matched_together():
    vms = [*running("a", strategy="LiveMigrate"), *running("b", strategy="LiveMigrate", **RACK)]
    nodes = [*host("n1"), *host("n2", vfs=1, labels={"rack": "a"}), *host("n3", vfs=1)]
    assert outcomes(*BASE, *nodes, *vms) == {"a": ("LosesLink", "n3"), "b": ("LosesLink", "n2")}


def test_a_vf_goes_to_a_migrating_vm_before_a_stopped_one():
    vms = [*running("a"), *running("b", strategy="LiveMigrate")]
    plan = plan_of(*BASE, *host("n1"), *host("n2", vfs=1), *vms)
    found = {one["name"]: (one["outcome"], one["node"], one["startsAgain"]) for one in plan["vms"]}
    assert found == {"a": ("Stopped", None, True), "b": ("LosesLink", "n2", None)}
    assert "waits for 1 of vmnic.dev/fast" in plan["vms"][0]["message"]


@pytest.mark.parametrize(("run_strategy", "again"), [("Always", True), ("Manual", False), ("RerunOnFailure", None)])
def test_a_stopped_vm_says_whether_it_starts_again(run_strategy, again):
    found = only(*BASE, *host("n1"), *host("n2"), *running("db", run_strategy=run_strategy))
    assert (found["outcome"], found["startsAgain"], found["node"]) == ("Stopped", again, "n2" if again else None)


def test_an_instance_without_a_vm_is_listed_and_holds_its_vf():
    lone = running("lone", "n2", owned=False)
    vms = [*running("db", strategy="LiveMigrate"), *lone]
    assert outcomes(*BASE, *host("n1"), *host("n2", vfs=1), *vms) == {"db": ("Blocks", None)}
    found = only(*BASE, *host("n1"), *host("n2"), *running("lone", strategy="LiveMigrate", owned=False))
    assert (found["kind"], found["outcome"], found["node"]) == ("VirtualMachineInstance", "LosesLink", "n2")


@pytest.mark.parametrize(("owner", "again"), [(None, False), ("VirtualMachineInstanceReplicaSet", None)])
def test_an_instance_without_a_vm_starts_again_only_by_its_owner(owner, again):
    (lone,) = running("lone", owned=False)
    lone["metadata"]["ownerReferences"] = [{"kind": owner, "name": "x"}] if owner else []
    assert only(*BASE, *host("n1"), *host("n2"), lone)["startsAgain"] is again


def test_an_unreadable_node_state_is_unknown_and_not_full():
    objects = collect(*BASE, *host("n1"), host("n2")[0], *running("db", strategy="LiveMigrate"))
    load_live(objects, host("n2")[1] | {"status": 5})
    plan = make_drain_plan("n1", objects, decide_all(objects, offline=False), [], offline=False)
    assert (plan["vms"][0]["outcome"], [one["object"] for one in plan["problems"]]) == ("Unknown", ["NodeNicState/n2"])


def test_a_node_without_a_state_is_unknown_only_offline():
    given = [*BASE, *host("n1"), host("n2")[0], *running("db", strategy="LiveMigrate")]
    assert outcomes(*given) == {"db": ("Unknown", None)}
    assert outcomes(*given, offline=False) == {"db": ("Blocks", None)}


def test_an_unreadable_instance_may_run_on_the_node():
    objects = collect(*BASE, *host("n1"))
    load_live(objects, running("db")[1] | {"status": {"conditions": 5}})
    plan = make_drain_plan("n1", objects, decide_all(objects, offline=False), [], offline=False)
    assert [(one["name"], one["outcome"]) for one in plan["vms"]] == [("db", "Unknown")]


def test_a_vf_of_an_unknown_network_is_unknown():
    found = only(*BASE[:2], *host("n1"), *host("n2"), *running("db", strategy="LiveMigrate"))
    assert (found["outcome"], "NetworkAttachmentDefinition" in found["message"]) == ("Unknown", True)


def test_a_vm_without_an_instance_may_run_on_the_node():
    found = only(*BASE, *host("n1"), vm("web"))
    assert (found["outcome"], "kubectl get vmi" in found["message"]) == ("Unknown", True)
    assert plan_of(*BASE, *host("n1"), vm("web", run_strategy="Halted"))["vms"] == []
    assert plan_of(*BASE, *host("n1"), vm("web"), offline=False)["vms"] == []


def test_vms_of_other_nodes_and_ended_ones_are_left_out():
    other, ended = running("other", "n2"), running("ended")
    ended[1]["status"]["phase"] = "Succeeded"
    assert plan_of(*BASE, *host("n1"), *host("n2"), *other, *ended, offline=False)["vms"] == []


def test_a_vm_that_migrates_to_the_node_is_told():
    held = {0: "pod tenants/virt-launcher-db-abcde"}
    plan = plan_of(*BASE, *host("n1", held=held), *host("n2"), *running("db", "n2", strategy="LiveMigrate"))
    (problem,) = (one for one in plan["problems"] if one["reason"] == "InUse")
    assert (plan["vms"], "a VM on n2" in problem["message"]) == ([], True)


TOO_MANY = [{"key": str(number)} for number in range(5000)]


@pytest.mark.parametrize(("strategy", "outcome"), [("LiveMigrate", "Unknown"), (None, "Stopped")])
def test_tolerations_beyond_the_bound_leave_the_place_unknown(strategy, outcome):
    found = only(*BASE, *host("n1"), *host("n2"), *running("db", strategy=strategy, tolerations=TOO_MANY))
    assert (found["outcome"], "tolerations" in found["message"]) == (outcome, outcome == "Unknown")


def test_a_condition_of_unknown_status_tells_its_reason():
    machine, instance = running("db", strategy="LiveMigrate")
    instance["status"]["conditions"][0] |= {"status": "Unknown", "reason": "NotAsked"}
    found = only(*BASE, *host("n1"), *host("n2"), machine, instance)
    assert (found["outcome"], "(NotAsked)" in found["message"]) == ("Unknown", True)


def test_holders_that_are_no_vms_are_named():
    held = {0: "pod tenants/virt-launcher-db-abcde", 1: "domain old", 2: ""}
    plan = plan_of(*BASE, *host("n1", held=held), *host("n2"), *running("db", strategy="LiveMigrate"))
    assert [one["message"].partition(" holds")[0] for one in plan["problems"] if one["reason"] == "InUse"] == [
        "domain old",
        "an unknown process",
    ]


def test_many_nics_and_hostile_names_stay_text(capsys):
    machine, instance = running("db", strategy="LiveMigrate")
    instance["status"]["conditions"][0] |= {"status": "False", "message": "\x1b[2J[red]x[/red]" + "y" * 5000}
    show_drain_plan(plan_of(*BASE, *host("n1"), *host("n2"), machine, instance))
    shown = capsys.readouterr().out
    assert ("\x1b" in shown, "[red]x" in shown.replace("\n", ""), len(shown) < 3000) == (False, True, True)


@pytest.mark.parametrize(
    ("objects", "code"),
    [
        (running("db", strategy="LiveMigrate"), 0),
        (running("db"), 1),
        (running("db", strategy="LiveMigrate", migratable=False), 1),
        (running("db", strategy="LiveMigrate", migratable=None), 1),
        ((vm("broken", nic()) | {"spec": 5},), 2),
    ],
    ids=["it migrates", "it is stopped", "it blocks", "it is unknown", "it cannot be read"],
)
def test_the_exit_code_tells_the_worst_outcome(objects, code):
    given = [*BASE, *host("n1"), *host("n2"), *objects]
    assert run("drain-plan", "n1", "-f", "-", text=documents(*given))[0] == code


def test_json_and_table_name_the_target():
    given = [*BASE, *host("n1"), *host("n2"), *running("db", strategy="LiveMigrate")]
    code, out, _ = run("drain-plan", "n1", "-f", "-", "-o", "json", text=documents(*given))
    plan = TypeAdapter(DrainPlan).validate_python(json.loads(out))
    assert (code, plan["vms"][0]["node"], plan["vms"][0]["devices"], plan["vms"][0]["linkLost"]) == (
        0, "n2", {FAST: 1}, ["fast0"],
    )  # fmt: skip
    table = run("drain-plan", "n1", "-f", "-", text=documents(*given))[1]
    assert ("tenants/db" in table, "PodDisruptionBudgets" in table) == (True, True)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "all.yaml").write_text(documents(*BASE, *host("n1")))
    (tmp_path / "bad.yaml").write_text("{")
    code, out, err = run("drain-plan", "n1", "-f", str(tmp_path), "-o", "json")
    plan = TypeAdapter(DrainPlan).validate_python(json.loads(out))
    assert (code, "bad.yaml" in err, "bad.yaml" in plan["problems"][0]["message"]) == (2, True, True)


@pytest.mark.parametrize("name", ["n9", "", "\x1b[2Jn1", "N1"])
def test_a_node_that_nothing_names_is_an_error(name):
    _, unscheduled = running("db", "")
    code, out, err = run("drain-plan", name, "-f", "-", text=documents(*BASE, *host("n1"), unscheduled))
    assert (code, out, "kubectl get nodes" in err, "\x1b" in err) == (2, "", True, False)
