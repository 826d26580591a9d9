"""No output interprets untrusted text of any field: terminal, rich, Markdown, JSON and YAML."""

import copy
import json
import logging
import re
import sys

import pytest
import typer
import yaml

from tests.builders.vm import kubevirt, nad, nic, node, node_state, policy, pool, quota, vm, vmi
from vmnic.cli import host_record, live, terminal, uninstall
from vmnic.cli.app import app
from vmnic.cli.markdown import escape_markdown
from vmnic.cli.objects import Objects
from vmnic.cli.set_aside import SetAside
from vmnic.cli.setup import Setup

HOSTILE = (
    "\x1b]8;;http://evil.example\x1b\\[link=http://evil.example]a[/link][bold red]b[/bold red][/foo]\x9b31m\x7f\x00\u202e\u2028\x85"
    "\n# Heading\r\n| a | b |\n- @everyone #1 GH-2 <img src=x> <!-- ![i](http://e) [l](http://e) ``c`` ` :smile: :100:"
    " www.evil.example _em_ *em* ~~s~~ $m$ \\| &lt;\t\udc80"
)
SAFE_OUTSIDE_CODE = re.compile(r"[A-Za-z0-9 .,;()='\"/:+_|*#-]*")


def scene():
    """Return one object of each kind, with every field that a command shows."""
    state = node_state(held=[1])
    condition = {"type": "Ready", "status": "False", "reason": "Waits", "message": "m", "lastTransitionTime": "t"}
    pf = state["status"]["pfs"][0] | {"vendor": "8086", "device": "1521"}
    pf["plan"] = {"digest": "d1", "text": "create VFs", "disruptive": True, "blockedBy": ["pod a/b holds 0000:0b:10.2"]}
    pf["held"] = [{"vf": "0000:0b:10.2", "by": "pod a/b"}]
    failed = pf | {"pciAddress": "0000:0c:00.0", "problem": {"reason": "ForeignOwner", "message": "NetworkManager"}}
    state["status"] |= {"pfs": [pf, failed], "conditions": [condition]}
    state["status"]["host"]["refused"] = ["tun: EPERM"]
    assigned = {"nics": {"data": {"datapath": "vhost", "model": "virtio", "was": {"model": "e1000e"}}}}
    notes = {"vmnic.dev/assigned": json.dumps(assigned), "vmnic.dev/network-pressure": "High"}
    web = vm("web", nic(model="e1000e"), nic("data", binding="bridge", network="br", model="virtio"))
    web["metadata"]["annotations"] = notes
    rule = policy("vf", datapaths=["sriov", "macvtap", "vhost"], sriov={"pool": "fast"})
    rule["status"] = {"conditions": [condition | {"type": "Stalled", "status": "True"}]}
    fast = pool()
    fast["status"] = {"conditions": [condition], "problems": [{"reason": "NadExists", "message": "m"}]}
    networks = [nad("br", segment="blue"), nad("fast", cni="sriov", resource="vmnic.dev/fast", segment="blue")]
    others = [kubevirt(), quota(hard={"limits.memory": "1Gi"}), node(labels={"a": "b"}), vmi(guest="linux", macs={"data": "m"})]
    return [web, rule, fast, state, *networks, *others, pool("whole", function="Physical")]


KEYED = ("labels", "annotations", "binding", "hard", "allocatable")
"""Maps whose keys are untrusted text, too."""


def fields(value, path=()):
    """Yield the path of each text of a structure, and whether the text is a key of a map."""
    if isinstance(value, str):
        yield path, False
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if path and path[-1] in KEYED:
            yield (*path, key), True
        yield from fields(inner, (*path, key))


def poisoned(*places):
    """Return the scene with hostile text in some places."""
    objects = copy.deepcopy(scene())
    for path, is_key in places:
        place = objects
        for step in path[:-1]:
            place = place[step]
        if is_key:
            place[HOSTILE] = place.pop(path[-1])
        else:
            place[path[-1]] = HOSTILE
    return objects


PLACES = [(path, is_key) for path, is_key in fields(scene()) if path[1] not in ("apiVersion", "kind")]
FREE_TEXT = [place for place in PLACES if place[0][-1] in ("message", "text", "by", "model", "name") and "status" in place[0]]
MACHINE = ["json", "yaml"]
EXPLAIN, REVERT = ["explain", "vm", "web", "-n", "tenants"], ["revert", "vm", "web", "-n", "tenants"]
PATH = ["path", "vm", "web", "-n", "tenants"]
EACH_FIELD = [
    *(["plan", "-o", how] for how in ("table", "markdown", "json", "html")),
    *([*PATH, "-o", how] for how in ("table", "svg")),
    *(["nodes"], ["nodes", "n1", "-o", "wide"], ["capacity"], ["status"], EXPLAIN, REVERT, ["approve", "n1"], ["uninstall"]),
]
ONCE = [
    *([*what, "-o", how] for what in (["plan"], ["nodes"], ["capacity"], ["status"], EXPLAIN, PATH) for how in MACHINE),
    *(["explain", "vm", HOSTILE], ["nodes", HOSTILE], ["approve", HOSTILE], ["approve", "n1", HOSTILE]),
    *(["nodes", "n1", "-o", how] for how in MACHINE),
    *(
        ["path", "vm", HOSTILE],
        ["path", "vm", HOSTILE, "-n", HOSTILE],
        ["revert", "vm", HOSTILE],
        [*REVERT, "--apply"],
        ["uninstall", "--apply"],
    ),
]


@pytest.fixture
def answer(monkeypatch, capsys):
    """Run a command on given objects instead of a cluster, and return exit code, output and errors."""
    monkeypatch.setattr(terminal, "_PLAIN_WIDTH", 100_000)
    # `uninstall` sets the log level of the process, which other tests share.
    monkeypatch.setattr(logging.getLogger("vmnic"), "setLevel", lambda level: None)
    given = []

    async def read_cluster(kubeconfig, kinds):
        objects = Objects(of_server=True)
        for one in given:
            live.load_live(objects, copy.deepcopy(one))
        return objects, []

    async def read_setup(kubeconfig):
        return Setup(webhook={"webhooks": [{"name": HOSTILE, "clientConfig": {}}]}, daemons=(HOSTILE,), refusals=(HOSTILE,))

    async def read_published(kubeconfig):
        return [SetAside(kind=HOSTILE, name=HOSTILE, namespace=HOSTILE, reason=HOSTILE, message=HOSTILE)], HOSTILE

    async def nothing(*args, **more):
        more.get("tell", print)(HOSTILE if "tell" in more else "")

    def fetch_record(*args, **more):
        raise host_record.FetchError(HOSTILE)

    monkeypatch.setattr(host_record, "fetch_record", fetch_record)
    for name, fake in (("read_cluster", read_cluster), ("read_setup", read_setup), ("read_published", read_published)):
        monkeypatch.setattr(live, name, fake)
    monkeypatch.setattr(live, "patch_machine", nothing)
    monkeypatch.setattr(live, "annotate_state", nothing)
    monkeypatch.setattr(uninstall, "uninstall_all", nothing)

    def run(objects, *arguments):
        given[:] = objects
        try:
            code = app(list(arguments), standalone_mode=False)
        except typer.Exit as end:
            code = end.exit_code
        return (code or 0, *capsys.readouterr())

    return run


def without_code(line):
    """Return a line of Markdown without its code spans."""
    return re.sub(r"(?<!`)(`+)(?!`)(.*?)(?<!`)\1(?!`)", "", line)


def check(arguments, out, err):
    """Assert that the output acts on no terminal, renderer or parser."""
    assert (out + err).replace("\n", "").isprintable()
    assert not re.search(r"^(# Heading|\| a \| b \||- @)", out + err, re.MULTILINE)
    assert "http://evil" not in out + err or "[link=http://evil" in out + err
    assert ":smile" not in out + err or ":smile:" in out + err
    how = arguments[-1]
    if how in MACHINE and out:
        assert out.isascii()
        (json.loads if how == "json" else yaml.safe_load)(out)
    if how in ("html", "svg") and out:
        assert out.isascii()
        assert not re.search(r"<(?:img|script|!--)", out)
    if how == "markdown":
        assert [line for line in out.splitlines() if not SAFE_OUTSIDE_CODE.fullmatch(without_code(line))] == []
        assert {line.count("|") for line in out.splitlines() if line.startswith("|")} <= {6, 8}


def words_of(arguments):
    return " ".join(arguments).replace(HOSTILE, "HOSTILE")


@pytest.mark.parametrize("arguments", EACH_FIELD, ids=words_of)
def test_no_command_interprets_the_text_of_a_field(answer, arguments):
    for place in PLACES:
        code, out, err = answer(poisoned(place), *arguments)
        assert code in (0, 1, 2), place
        check(arguments, out, err)


@pytest.mark.parametrize("arguments", ONCE, ids=words_of)
def test_no_format_interprets_text_or_arguments(answer, arguments):
    code, out, err = answer(poisoned(*FREE_TEXT), *arguments)
    assert code in (0, 1, 2)
    check(arguments, out, err)


def test_the_other_objects_are_planned_despite_a_hostile_one(answer):
    for path in PLACES:
        extra = vm("extra", nic(model="e1000e"), namespace="others")
        rule = policy("others", selector={"guestOS": ["linux"]}, priority=1)
        _, out, _ = answer([*poisoned(path), extra, rule], "plan", "-o", "json")
        made = json.loads(out)
        unread = any(one["object"].startswith("VmNicPolicy") and one["reason"] == "Unreadable" for one in made["problems"])
        assert unread or "extra" in [one["name"] for one in made["vms"]], path


@pytest.mark.parametrize("text", ["[/foo]", "[link=http://evil]a[/link]", "[bold]a", ":smile:", "a\nb"])
def test_a_table_shows_text_literally(capsys, text):
    terminal.show_table((text,), [(text,)])
    assert capsys.readouterr().out.split() == [text.replace("\n", "\\n")] * 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("vhost (virtio) to emulated (e1000e)", "vhost (virtio) to emulated (e1000e)"),
        ("a|b", "`a\\x7cb`"),
        ("a\nb", "`a\\nb`"),
        ("a`b", "``a`b``"),
        ("`", "`` ` ``"),
        ("@all", "`@all`"),
        ("see www.x.org", "`see www.x.org`"),
        ("_x_", "`_x_`"),
        ("vm_nic", "vm_nic"),
        ("a :tada: b", "`a :tada: b`"),
        ("", ""),
    ],
)
def test_markdown_shows_text_literally(text, shown):
    assert escape_markdown(text) == shown


def test_only_one_module_prints():
    import ast
    import pathlib

    import vmnic.cli

    printers = set()
    for path in pathlib.Path(vmnic.cli.__file__).parent.glob("*.py"):
        for one in ast.walk(ast.parse(path.read_text())):
            name = getattr(one.func, "id", getattr(one.func, "attr", "")) if isinstance(one, ast.Call) else ""
            printers |= {path.name} if name in ("print", "echo", "secho", "Console", "Text") else set()
    assert printers == {"terminal.py"}
    assert sys.modules["vmnic.cli.terminal"] is terminal
