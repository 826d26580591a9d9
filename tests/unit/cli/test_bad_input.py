"""No input crashes `kubectl vmnic`. Malformed input is named, and the rest is planned."""

import json
import os
import pathlib
import resource
import socket
import subprocess
import sys

import pytest
import yaml

from tests.builders.vm import nad, nic, node_state, policy, pool, vm

PROGRAM = str(pathlib.Path(sys.executable).with_name("kubectl-vmnic"))
MOST_BYTES = 2**30
"""Limit of the command's address space in bytes, so that a YAML bomb ends the command and not the machine."""


def run(*arguments, text=None, **options):
    limit = (MOST_BYTES, MOST_BYTES)
    done = subprocess.run(
        [PROGRAM, *map(str, arguments)], input=text, capture_output=True, check=False, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit), **options,
    )  # fmt: skip
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def good(name="good"):
    return yaml.safe_dump_all([policy("linux"), vm(name, nic(model="e1000e"), run_strategy="Halted")])


def with_text(path, text):
    """Return a VM with a text at a path of its fields."""
    machine = vm("bad")
    place = machine
    for step in path[:-1]:
        place = place.setdefault(step, {})
    place[path[-1]] = text
    return yaml.safe_dump(machine)


def bomb(base, step):
    levels = [f"  a{level}: &a{level} {step.format(','.join([f'*a{level - 1}'] * 9))}\n" for level in range(1, 10)]
    return f"kind: VirtualMachine\nmetadata: {{name: bad}}\nspec:\n  a0: &a0 {base}\n" + "".join(levels)


def domain(inside):
    return f"<domain><name>bad</name>{inside}<devices/></domain>"


NOTES = ("metadata", "annotations")
MEMORY = ("spec", "template", "spec", "domain", "memory", "guest")
ASSIGNED = json.dumps({"nics": {"default": {"datapath": "vhost", "model": "virtio", "was": {"interface": 5}}}})
DEEP = '{"x": ' * 2000 + "1" + "}" * 2000
HARMLESS = [
    with_text((*NOTES, "vmnic.dev/network-pressure"), "[/foo]"),
    with_text((*NOTES, "vmnic.dev/network-pressure"), "[link=http://evil]click[/link]"),
    with_text((*NOTES, "vmnic.dev/assigned"), DEEP),
    with_text((*NOTES, "vmnic.dev/assigned"), ASSIGNED),
    with_text(MEMORY, "1e9999999Ki"),
    with_text(MEMORY, "9e999999999999999999"),
    with_text(MEMORY, "1e3000000"),
    yaml.safe_dump(nad("deep") | {"spec": {"config": "[" * 100_000}}),
]
REFUSED = {
    "aliases": (bomb("[x]", "[{}]"), "standard input:1: VirtualMachine bad: more than 200000 values"),
    "merge keys": (bomb("{a: 1}", "{{<<: [{}]}}"), "VirtualMachine bad: more than 200000 values"),
    "merge keys of another kind": (bomb("{a: 1}", "{{<<: [{}]}}").replace("VirtualMachine", "ConfigMap"), "ConfigMap bad:"),
    "100,000 brackets": ("[" * 100_000, "levels are not read"),
    "100,000 brackets in a VM": ("kind: VirtualMachine\nmetadata: {name: bad}\nx: " + "[" * 100_000, "VirtualMachine bad: more than"),
    "an alias of itself": ("kind: VirtualMachine\nmetadata: &m {name: *m}", "the alias *m stands for itself"),
    "a tag of Python": ("kind: VirtualMachine\nmetadata: !!python/name:os.system {}", "metadata.name is missing"),
    "5,000 digits": ("kind: VirtualMachine\nmetadata: {name: bad}\nspec: " + "9" * 5000, "a number of 5000 characters"),
    "30 digits": ("kind: SriovNetworkPool\nmetadata: {name: bad}\nspec: {numVfs: " + "9" * 30 + "}", "SriovNetworkPool bad:"),
    "words for a map": ("kind: VirtualMachine\nmetadata: {name: bad}\nspec: words", "VirtualMachine bad: "),
    "a list of lists": ("kind: VirtualMachineList\nitems: [[[]]]", "not a Kubernetes object"),
    "no text": (b"\xff\x00a", "standard input:1: not valid YAML"),
    "XML that is no text": (b"<domain><name>B\xfcro</name></domain>", "standard input: not UTF-8 text"),
    "NUL": (b"a: \x00", "standard input:1: not valid YAML"),
    "too much text": (b"a: " + b"x" * 3_000_000, "a text of more than 2097152 characters"),
    "vCPUs of a domain": (domain(f"<vcpu>{'9' * 5000}</vcpu>"), "standard input: domain bad, line 1: <vcpu>999"),
    "memory of a domain": (domain(f"<memory>{'9' * 5000}</memory>"), "standard input: domain bad, line 1: <memory>999"),
    "a deep domain": ("<domain>" + "<a>" * 5000, "standard input: line 1: not valid XML"),
    "a wide domain": ("<domain>" + "<a/>" * 100_000, "occurs more than 20000 times"),
    "a DTD": ('<!DOCTYPE a [<!ENTITY a "x">]><domain><name>&a;</name></domain>', "<!DOCTYPE is not read"),
}  # fmt: skip


@pytest.mark.parametrize("text", HARMLESS, ids=range(len(HARMLESS)))
def test_a_hostile_object_does_not_affect_the_plan_of_others(text):
    code, out, err = run("plan", "-f", "-", "--fail-on", "never", text=f"{good()}\n---\n{text}".encode())
    assert (code in (0, 2), "tenants/good" in out, "Traceback" in err) == (True, True, False), (code, out, err)


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_named_and_gives_exit_code_2(text, words):
    code, _, err = run("plan", "-f", "-", text=text if isinstance(text, bytes) else text.encode())
    assert (code, "Traceback" in err) == (2, False), err
    assert words in err
    assert len(err) < 2000


@pytest.mark.parametrize("text", [text for text, _ in REFUSED.values()], ids=REFUSED)
def test_the_other_files_are_planned_despite_a_bad_one(tmp_path, text):
    (tmp_path / "a.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    (tmp_path / "b.yaml").write_text(good())
    code, out, err = run("plan", "-f", tmp_path, "-o", "json")
    assert (code, [one["name"] for one in json.loads(out)["vms"]]) == (2, ["good"]), err


def test_all_errors_are_named(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.yaml").write_text(f"kind: VirtualMachine\nmetadata: {{name: v{number}}}\nspec: 5\n")
    code, _, err = run("plan", "-f", tmp_path, "-f", "/no/such/file")
    assert (code, [f"{number}.yaml:1: VirtualMachine v{number}: " in err for number in range(3)]) == (2, [True] * 3)
    assert "/no/such/file: No such file" in err


def test_no_vm_is_planned_while_a_policy_is_unreadable():
    broken = yaml.safe_dump({**policy("broken"), "spec": {"selector": 5}})
    code, out, err = run("plan", "-f", "-", "-o", "json", text=f"{good()}\n---\n{broken}".encode())
    made = json.loads(out)
    assert (code, made["vms"], "VmNicPolicy broken: spec." in err) == (2, [], True)
    assert ["no VM is planned" in one["message"] for one in made["problems"]] == [True]


def odd_file(directory, kind):
    path = directory / "odd.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    elif kind == "link to nothing":
        path.symlink_to("nothing")
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("kind", ["pipe", "socket", "link to nothing", "link to itself", "link to a device"])
def test_an_entry_that_is_not_a_file_is_named_without_waiting(tmp_path, kind):
    odd_file(tmp_path, kind)
    (tmp_path / "b.yaml").write_text(good())
    code, out, err = run("plan", "-f", tmp_path)
    assert (code, "odd.yaml" in err, "tenants/good" in out) == (2, True, True)


def test_a_link_to_a_parent_directory_is_not_followed(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "up").symlink_to(tmp_path)
    (tmp_path / "below" / "a.yaml").write_text(good())
    assert run("plan", "-R", "-f", tmp_path)[0] == 1


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
def test_an_endless_device_is_an_error(device):
    code, _, err = run("plan", "-f", device)
    assert (code, device in err) == (2, True)


def test_a_file_beyond_the_size_limit_is_an_error(tmp_path):
    with (tmp_path / "large.yaml").open("w") as large:
        for _ in range(65):
            large.write("#\n" * 2**19)
    code, _, err = run("plan", "-f", tmp_path)
    assert (code, "large.yaml: more than 64 MiB are not read" in err) == (2, True)


def test_a_pipe_given_as_argument_is_read(tmp_path):
    done = subprocess.run(
        ["bash", "-c", f"{PROGRAM} plan -f <(cat)"], input=good(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, "tenants/good" in done.stdout) == (1, True)


def test_a_closed_standard_input_is_an_error():
    done = subprocess.run(["bash", "-c", f"{PROGRAM} plan -f - <&-"], capture_output=True, text=True, check=False)
    assert (done.returncode, "standard input" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_unencodable_characters_are_shown_as_escape_sequences(encoding):
    text = yaml.safe_dump_all([policy("linux"), vm("ж", nic(model="e1000e"))], allow_unicode=True)
    code, out, _ = run("plan", "-f", "-", text=text.encode(), env=os.environ | {"PYTHONIOENCODING": encoding})
    assert (code, ("ж" if encoding == "utf-8" else "\\u0436") in out) == (1, True)


@pytest.mark.parametrize("field", ["firstVf", "range", "vf"])
def test_a_malformed_node_state_affects_only_itself(field):
    state = node_state(held=[1])
    pf = state["status"]["pfs"][0]
    place = {"firstVf": pf, "range": pf["vfs"][0], "vf": pf["held"][0]}[field]
    place[field] = "zz"
    text = yaml.safe_dump_all(
        [pool(), state, node_state("n2"), yaml.safe_load(yaml.safe_dump(policy("linux"))), vm("good", nic(model="e1000e"))]
    )
    code, out, err = run("plan", "-f", "-", text=text.encode())
    assert (code in (1, 2), "tenants/good" in out, "Traceback" in err) == (True, True, False), err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "levels are not read"),
        ("- &a [x]\n- [*a,*a]", "$[0]"),
        ("a: 1\n---\nb: 1", "it has 2 documents"),
        ("", "it has 0 documents"),
        ("#" * 300_000, "more than 262144 characters"),
        ("- {model: X, vendor: '8086', pf: ['10E6'], vf: [], driver: a, vfDriver: b, maxVfs: 7, vfGuests: []}", "$[0].pf[0]"),
        ("- {model: X, vendor: '8086', pf: [], vf: [], driver: a, vfDriver: b, maxVfs: 99999, vfGuests: []}", "$[0].maxVfs"),
        ("- {model: X, vendor: '8086', pf: [], vf: [], driver: a, vfDriver: b, maxVfs: 7, vfGuests: [], vfsBy: x}", "$[0].vfsBy"),
        ("- \x1b", "unacceptable character"),
    ],
)  # fmt: skip
def test_an_unusable_nic_data_file_is_named(tmp_path, text, words):
    (tmp_path / "nics.yaml").write_text(text)
    code, _, err = run("--nic-data", tmp_path / "nics.yaml", "plan", "-f", "-", text=good().encode())
    assert (code, "nics.yaml: " in err, words in err, "Traceback" in err) == (2, True, True, False), err


UNUSABLE_GUESTS = [
    ("[" * 100_000, "levels are not read"),
    ("a: 1\n---\nb: 1", "it has 2 documents"),
    ("#" * 300_000, "more than 262144 characters"),
    ("- {object: Template, label: a}", "Expected `object`"),
    ("place: []", "unknown field `place`"),
    ("places: [{object: Pod, label: a}]", "$.places[0].object"),
    ("places: [{object: Template}]", "give one of label, annotation and labelPrefix - at `$.places[0]`"),
    ("places: [{object: Template, label: a, annotation: b}]", "give one of label, annotation and labelPrefix"),
    ("places: [{object: Template, label: ''}]", "$.places[0].label"),
    (f"places: [{'{object: Template, label: a},' * 65}]", "$.places"),
    ("names: {windows: [1042]}", "$.names.windows[0]"),
    ("names: {linux: ['']}", "$.names.linux[0]"),
    ("names: {bsd: [freebsd]}", "unknown field `bsd`"),
]


@pytest.mark.parametrize(("text", "words"), UNUSABLE_GUESTS)
def test_an_unusable_guest_data_file_is_named(tmp_path, text, words):
    (tmp_path / "guests.yaml").write_text(text)
    code, _, err = run("--guest-data", tmp_path / "guests.yaml", "plan", "-f", "-", text=good().encode())
    assert (code, "guests.yaml: " in err, words in err, "Traceback" in err) == (2, True, True, False), err


@pytest.mark.parametrize("flag", ["--nic-data", "--guest-data"])
def test_the_controller_stops_at_an_unusable_data_file(tmp_path, flag):
    command = [sys.executable, "-m", "vmnic", "controller", flag, str(tmp_path / "missing.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "missing.yaml" in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
