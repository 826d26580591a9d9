"""Make the pictures from the tutorial and the examples: `python -m docs.make_pictures` (`make docs`).

The cluster tier runs the commands of the tutorial and compares, so the pictures show what vmnic prints.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.harness.pages import read_steps
from vmnic.cli.files import read_files
from vmnic.cli.offline import decide_all
from vmnic.cli.path import index_ports, paths_of_vm
from vmnic.cli.svg import COLORS, draw_text, render_paths, render_picture
from vmnic.policy.facts import Datapath

PICTURES = pathlib.Path(__file__).parent / "pictures"
EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
TUTORIAL = pathlib.Path(__file__).parent / "tutorial.md"
SESSION = (
    "kubectl apply -f examples/pools/",
    "kubectl vmnic nodes",
    "kubectl apply -f examples/vms/shop.yaml",
    "kubectl apply -f examples/policies/",
    "kubectl apply -f examples/vms/web.yaml",
    "kubectl vmnic plan",
    "kubectl vmnic explain vm shop",
    "kubectl patch snp tenant-fast",
    "kubectl get snp tenant-fast -o wide",
    "kubectl patch vm db",
    "kubectl get snp,vnp",
)
"""Beginnings of the commands of the session, in the order of the tutorial."""
PATHS = {
    Datapath.EMULATED: ("{model} driver", "{model}, emulated", "tap, bridge", "{uplink}"),
    Datapath.VIRTIO: ("virtio-net", "virtio-net", "tap, bridge", "{uplink}"),
    Datapath.VHOST: ("virtio-net", "", "vhost-net, tap, bridge", "{uplink}"),
    Datapath.MACVTAP: ("virtio-net", "", "vhost-net, macvtap", "{uplink}"),
    Datapath.SRIOV: ("VF driver", "", "", "VF of {pf}"),
    Datapath.PASSTHROUGH: ("PF driver", "", "", "{pf}"),
}
"""What handles a packet on its way out, layer by layer; an empty layer is bypassed."""
_LAYERS = ("guest", "QEMU", "host kernel", "NIC of the node")
_LEFT, _COLUMN, _BOX, _ROW, _TOP = 226, 188, 164, 46, 74
_WIDTH = _LEFT + len(_LAYERS) * _COLUMN + 8
_COLUMNS = 104
"""Characters in a line of the session; a longer line is cut."""
_CHARACTER, _LINE = 7.3, 17


@dataclass(frozen=True, slots=True)
class _Nic:
    """One line of the plan."""

    vm: str
    name: str
    now: str
    wanted: str
    verdict: str
    why: str


def render_pictures() -> dict[str, str]:
    """Return each picture by its file name."""
    return {"datapaths.svg": _datapaths(), "path.svg": _path_of_example(), "session.svg": _session()}


def _shown(beginning: str) -> tuple[str, ...]:
    return next(step.shown for step in read_steps(TUTORIAL) if step.command.startswith(beginning))


def _plan() -> list[_Nic]:
    rows = [re.split(r" {2,}", line.rstrip()) for line in _shown("kubectl vmnic plan")[1:] if "/" in line]
    return [_Nic(*row[:5], *row[6:7] or [""]) for row in rows]


def _names() -> dict[str, str]:
    """Return the NICs that the tutorial's nodes show: the one with VFs, and the one that carries the node's address."""
    rows = [re.split(r" {2,}", line) for line in _shown("kubectl vmnic nodes")[1:]]
    pf = next(row for row in rows if row[-1].rstrip() == "as desired")
    uplink = next(row for row in rows if row[-1].startswith("HostUsed"))
    return {"pf": f"{pf[2]} ({pf[3]})", "uplink": f"{uplink[2]} ({uplink[3]})"}


def _datapaths() -> str:
    nics, names = _plan(), _names()
    lanes = [lane for nic in nics for lane in _lanes(nic, names)]
    height = _TOP + len(lanes) * _ROW + 34
    parts = [
        draw_text(16, 26, "Path of a packet from each NIC of five VMs", "font-weight='600' font-size='15'"),
        *(draw_text(_LEFT + n * _COLUMN + _BOX / 2, 54, layer, "class='c h'") for n, layer in enumerate(_LAYERS)),
        *(
            f"<rect x='{_LEFT + n * _COLUMN}' y='62' width='{_BOX}' height='{len(lanes) * _ROW + 6}' rx='6' fill='#f6f8fa'/>"
            for n in range(len(_LAYERS))
        ),
        *(f"<g transform='translate(0 {_TOP + number * _ROW})'>\n{lane}\n</g>" for number, lane in enumerate(lanes)),
        draw_text(
            16,
            height - 12,
            "A line without a box bypasses the layer. Dashed: what the policy wants. Source: kubectl vmnic plan.",
            "class='h'",
        ),
    ]
    font = "system-ui,'Segoe UI',Helvetica,'DejaVu Sans',sans-serif"
    style = f"text{{font-family:{font};font-size:13px;fill:#1f2328;stroke:none}}.c{{text-anchor:middle}}.h{{fill:#59636e}}"
    title = "The datapath of each NIC of five VMs, from the guest to the NIC of the node"
    return _svg(_WIDTH, height, title, style, "#ffffff", parts)


def _lanes(nic: _Nic, names: dict[str, str]) -> Iterator[str]:
    """Yield the NIC's lane, and one more for the datapath that it will have."""
    reason = nic.why if nic.verdict in ("Change", "Blocked") else ""
    verdict = f"{nic.verdict}: {reason}" if reason else nic.verdict
    yield "\n".join((draw_text(16, 12, f"{nic.vm} {nic.name}"), draw_text(16, 29, verdict, "class='h'"), _path(nic.now, names)))
    if nic.wanted != nic.now:
        yield "\n".join((draw_text(16, 20, f"wanted: {nic.wanted}", "class='h'"), _path(nic.wanted, names, is_later=True)))


def _path(shown: str, names: dict[str, str], *, is_later: bool = False) -> str:
    """Return the line and the boxes of a datapath as `kubectl vmnic plan` shows it, for example `emulated (e1000e)`."""
    datapath, _, model = shown.rstrip(")").partition(" (")
    color, layers = COLORS[Datapath(datapath)], PATHS[Datapath(datapath)]
    parts = [f"<path d='M{_LEFT + 8} 16H{_LEFT + 3 * _COLUMN + 8}'/>"]
    for number, template in enumerate(layers):
        if template:
            x = _LEFT + number * _COLUMN + 4
            parts.append(f"<rect x='{x}' y='2' width='{_BOX - 8}' height='28' rx='5' fill='#ffffff'/>")
            parts.append(draw_text(x + _BOX / 2 - 4, 20.5, template.format(model=model, **names), "class='c'"))
    dashes = " stroke-dasharray='5 4'" if is_later else ""
    return "\n".join((f"<g stroke='{color}' stroke-width='1.5'{dashes}>", *parts, "</g>"))


def _session() -> str:
    lines: list[tuple[str, str]] = []
    for beginning in SESSION:
        step = next(step for step in read_steps(TUTORIAL) if step.command.startswith(beginning))
        lines += [("class='p'", f"$ {step.command}"), *(("", line) for line in step.shown)]
    parts = [
        draw_text(16, 30 + number * _LINE, line if len(line) <= _COLUMNS else f"{line[: _COLUMNS - 1]}…", attributes)
        for number, (attributes, line) in enumerate(lines)
        if line
    ]
    width, height = round(_COLUMNS * _CHARACTER + 32), 24 + len(lines) * _LINE + 8
    font = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
    style = f"text{{font-family:{font};font-size:12px;fill:#d1d7e0}}.p{{fill:#7ee787;font-weight:600}}"
    title = "A terminal session: a pool, a policy, a plan, and a change that waits for a VM"
    return _svg(width, height, title, style, "#151b23", parts)


def _path_of_example() -> str:
    """Return the picture that `kubectl vmnic path` draws of an example."""
    objects = read_files([str(EXAMPLES)], recursive=True)
    decided = decide_all(objects, offline=True)
    decision = next(one for one in decided.vms if one.vm.name == "db")
    return "".join(f"{line}\n" for line in render_paths(paths_of_vm(decided, decision, index_ports(objects))))


def _svg(width: int, height: int, title: str, style: str, background: str, parts: list[str]) -> str:
    return "".join(f"{line}\n" for line in render_picture(width, height, title, parts, style=style, background=background))


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name, text in render_pictures().items():
        (PICTURES / name).write_text(text)
