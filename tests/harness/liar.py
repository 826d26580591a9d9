"""An agent that publishes every false status that the CRD's schema permits, with an agent's own token.

    python -m tests.harness.liar --server URL --ca FILE --token FILE --node n1

For every field of the schema, it tries the smallest and the largest number, every enum value, the longest text, and the empty
and the longest list. It also tries hand-picked lies.
"""

from __future__ import annotations

import argparse
import copy
import pathlib
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import yaml

from .api import Api, ApiFailure, path_of

__all__ = ["Liar", "lies", "read_schema"]

ROOT = pathlib.Path(__file__).parents[2]
CRD = ROOT / "crds" / "nodenicstates.yaml"
LARGEST = 2**63 - 1
_PATCH = "application/json-patch+json"
_TEXTS = (
    "0000:0b:00.0", "0000:0b:10.0", "d" * 32, "f" * 64, "0-255", "0", "pod kube-system/dns", "True", "Ready", "82576", "8086",
    "2026-01-01T00:00:00Z", "vfio-pci", "a", "",
)  # fmt: skip
"""One of these matches each pattern of the schema."""
FOREIGN = (
    "pod kube-system/dns", "pod tenants/database-0", "pod a/../../../../apis/x", "pod tenants/db?dryRun=All&y=",
    "domain web", "pod ../nodes/n2", "pod kube-system/",
)  # fmt: skip


def read_schema() -> dict[str, Any]:
    """Return the schema of a NodeNicState's status."""
    (version,) = yaml.load(CRD.read_text(), yaml.CSafeLoader)["spec"]["versions"]
    return dict(version["schema"]["openAPIV3Schema"]["properties"]["status"])


def lies(schema: dict[str, Any], truth: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield named statuses, each complete except that one field of the schema is changed."""
    whole = _merged(_full(schema), truth)
    # With another type of link the first function would be in no pool, and no other lie about it would have an effect.
    whole["pfs"][0] |= {"linkType": "", "vfAddresses": []}
    for path, values in _fields(schema, ()):
        for number, value in enumerate(values):
            yield f"{'.'.join(path)} #{number}", _replaced(whole, path, value)
    yield from _picked(truth)


def _fields(schema: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """Yield the path of every field with the values to try."""
    match schema.get("type"):
        case "object":
            for name, field in schema.get("properties", {}).items():
                yield from _fields(field, (*path, name))
        case "array":
            yield path, [[], _longest(schema)]
            yield from _fields(schema["items"], (*path, "[]"))
        case _:
            yield path, _values(schema)


def _values(schema: dict[str, Any]) -> list[Any]:
    """Return the extremes of one scalar field."""
    if "enum" in schema:
        return list(schema["enum"])
    match schema.get("type"):
        case "boolean":
            return [True, False]
        case "integer":
            return [schema.get("minimum", -LARGEST), 0, 1, schema.get("maximum", LARGEST)]
        case _:
            return _words(schema)


def _words(schema: dict[str, Any]) -> list[str]:
    """Return texts for a field.

    With a pattern, these are all texts that match it, otherwise names of foreign pods, the longest text, and control
    characters.
    """
    most, pattern = schema.get("maxLength", 70_000), schema.get("pattern")
    if pattern is not None:
        return [word for word in (*_TEXTS, "f" * most) if len(word) <= most and re.search(pattern, word)]
    return [word[:most] for word in ("", "a", *FOREIGN[:3], "x" * most, "\x1b[31m[bold]\n| # <b>")]


def _longest(schema: dict[str, Any]) -> list[Any]:
    """Return a list as long as the schema permits, with distinct keys."""
    keys = schema.get("x-kubernetes-list-map-keys", ())
    items = []
    for number in range(schema.get("maxItems", 10_000)):
        item = _full(schema["items"])
        for key in keys:
            item[key] = f"0000:{number:02x}:00.0" if key == "pciAddress" else f"Type{number}"
        items.append(item)
    return items


def _full(schema: dict[str, Any]) -> Any:
    """Return a value that has every field."""
    match schema.get("type"):
        case "object":
            return {name: _full(field) for name, field in schema.get("properties", {}).items()}
        case "array":
            return [_full(schema["items"])]
        case _:
            values = _values(schema)
            return next((one for one in values if one), values[0] if values else "")


def _merged(full: Any, truth: Any) -> Any:
    """Merge the true status into a value that has every field."""
    if isinstance(full, dict) and isinstance(truth, dict):
        return {name: _merged(full.get(name), truth[name]) if name in truth else full[name] for name in {**full, **truth}}
    if isinstance(full, list) and isinstance(truth, list) and full and truth:
        return [_merged(full[0], truth[0]), *truth[1:]]
    return truth


def _replaced(tree: Any, path: tuple[str, ...], value: Any) -> Any:
    """Return a copy with another value at a path.

    `[]` is the first item of a list.
    """
    result = copy.deepcopy(tree)
    node = result
    for part in path[:-1]:
        node = node[0 if part == "[]" else part]
    if path[-1] == "[]":
        # The list may be empty in the true status.
        node[:1] = [value]
    else:
        node[path[-1]] = value
    return result


def _picked(truth: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield lies that an attacker would choose."""
    first = truth["pfs"][0]
    vfs = [f"0000:0b:1{number // 8}.{number % 8}" for number in range(64)]
    plan = {"digest": "d" * 32, "actions": [], "text": "nothing", "disruptive": False, "fenced": False, "blockedBy": []}

    def told(name: str, **changes: Any) -> tuple[str, dict[str, Any]]:
        return name, truth | {"pfs": [first | changes, *truth["pfs"][1:]]}

    for by in FOREIGN:
        held = [{"vf": vf, "by": by} for vf in vfs]
        blocked = plan | {"disruptive": True, "blockedBy": [f"{by} holds {vf}" for vf in vfs[:20]]}
        yield told(f"{by} holds all", held=held, plan=blocked)
    for state in ("Claimed", "Applying", "Applied", "Failed", "RolledBack", "Refused"):
        yield told(f"a run {state}", plan=plan, apply={"digest": plan["digest"], "state": state})
        yield told(f"a run {state} and no plan", apply={"digest": plan["digest"], "state": state})
    for number in range(20):
        yield told(f"plan {number}", plan=plan | {"digest": f"{number:032x}"}, attempt=number)
        yield told(f"fenced plan {number}", plan=plan | {"digest": f"{number:032x}", "fenced": True})
        yield f"boot {number}", truth | {"bootID": f"boot-{number}"}
    for count in (0, 1, 7, 63, 256, 1024):
        yield told(f"{count} VFs", numVfs=count, totalVfs=count, held=[], vfs=[{"range": f"0-{count}", "driver": "vfio-pci"}])
    for model, device in (("82576", "10c9"), ("I350", "1521"), ("X710", "1572"), ("none", "ffff")):
        yield told(f"model {model}", model=model, vendor="8086", device=device)
    yield "no functions", truth | {"pfs": []}
    yield "nothing", {}


class Liar:
    """Publishes statuses of one node with its agent's token.

    Args:
        api: Requests with that token.
        node: The node.
        truth: The last status of the real agent.
    """

    def __init__(self, api: Api, node: str, truth: dict[str, Any]) -> None:
        self._api = api
        self._node = node
        self.truth = truth
        self.told = Counter[str]()
        """Number of lies that were stored, and that the API server refused."""

    def tell(self, status: dict[str, Any]) -> bool:
        """Publish a status that claims to describe the current spec, and return whether it was stored."""
        body = self._api.get("NodeNicState", self._node)
        assert body is not None
        if status.get("observedGeneration") == self.truth.get("observedGeneration"):
            status = status | {"observedGeneration": body["metadata"]["generation"]}
        try:
            self._api.request("PATCH", path_of("NodeNicState", "", self._node, "status"), [_put(status)], _PATCH)
        except ApiFailure as error:
            if error.status != 422:
                raise
            self.told["refused"] += 1
            return False
        self.told["stored"] += 1
        return True

    def grants(self) -> dict[str, str]:
        """Return the granted digests by function."""
        body = self._api.get("NodeNicState", self._node) or {}
        return {pf["pciAddress"]: pf["grant"] for pf in body.get("spec", {}).get("pfs", []) if pf.get("grant")}


def _put(status: dict[str, Any]) -> dict[str, Any]:
    return {"op": "add", "path": "/status", "value": status}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--ca", type=pathlib.Path, required=True)
    parser.add_argument("--token", type=pathlib.Path, required=True)
    parser.add_argument("--node", required=True)
    chosen = parser.parse_args()
    api = Api(chosen.server, chosen.ca, chosen.token.read_text())
    body = api.get("NodeNicState", chosen.node)
    assert body is not None
    liar = Liar(api, chosen.node, body["status"])
    for _, status in lies(read_schema(), liar.truth):
        liar.tell(status)
        time.sleep(0.02)
    print(f"{sum(liar.told.values())} lies: {dict(liar.told)}")


if __name__ == "__main__":
    main()
