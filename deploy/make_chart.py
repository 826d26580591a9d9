"""Makes the Helm chart from the kustomize base and its components: `python deploy/make_chart.py KUBECTL DIRECTORY`.

The base is rendered once plain and once with each component. Where a rendering differs from the plain one, the template gets a
condition on the component's value; where a value of the chart may be chosen freely, its expression. So the manifests are
written once, and `tests/cluster/test_packaging.py` compares what kustomize and Helm make of them.
"""

from __future__ import annotations

import itertools
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import yaml

DEPLOY = pathlib.Path(__file__).parent
CONDITIONS = {
    "module-options": ".Values.agent.moduleOptions",
    "udev-rules": ".Values.agent.udevRules",
    "libvirt": ".Values.agent.libvirt",
    "no-modules": "(not .Values.agent.loadModules)",
    "apparmor-unconfined": ".Values.agent.appArmorUnconfined",
    "privileged": ".Values.agent.privileged",
    "simulated": ".Values.simulated",
    "prometheus": ".Values.prometheus",
    "client-ca": ".Values.controller.clientCa",
}
"""The value that stands for each component."""
_IMAGE = ('{{ include "vmnic.image" . }}', "{{ .Values.image.pullPolicy }}")
_CONTROLLER = "spec.template.spec.containers.controller"
_AGENT = "spec.template.spec.containers.agent"
_MODULES = "spec.template.spec.initContainers.modules"
EXPRESSIONS = {
    ("Deployment", "spec.replicas"): "{{ .Values.controller.replicas }}",
    ("Deployment", "spec.template.spec.nodeSelector"): "{{ .Values.controller.nodeSelector | toJson }}",
    ("Deployment", f"{_CONTROLLER}.env.VMNIC_LOG_LEVEL.value"): "{{ .Values.controller.logLevel }}",
    ("Deployment", f"{_CONTROLLER}.env.VMNIC_POD_NETWORK_MTU.value"): "{{ .Values.controller.podNetworkMtu | quote }}",
    ("Deployment", f"{_CONTROLLER}.resources"): "{{ .Values.controller.resources | toJson }}",
    ("DaemonSet", "spec.template.spec.nodeSelector"): "{{ .Values.agent.nodeSelector | toJson }}",
    ("DaemonSet", "spec.template.spec.tolerations"): "{{ .Values.agent.tolerations | toJson }}",
    ("DaemonSet", f"{_AGENT}.env.VMNIC_LOG_LEVEL.value"): "{{ .Values.agent.logLevel }}",
    ("DaemonSet", f"{_AGENT}.resources"): "{{ .Values.agent.resources | toJson }}",
    **{
        (kind, f"{container}.{field}"): text
        for kind, container in (("Deployment", _CONTROLLER), ("DaemonSet", _AGENT), ("DaemonSet", _MODULES))
        for field, text in zip(("image", "imagePullPolicy"), _IMAGE, strict=True)
    },
}
"""What a user may choose freely, by kind and path; JSON is YAML too, and needs no indentation."""
ADDITIONS = {
    ("Deployment", "spec.template.spec"): {
        "imagePullSecrets": "{{ .Values.imagePullSecrets | toJson }}",
        "tolerations": "{{ .Values.controller.tolerations | toJson }}",
    },
    ("DaemonSet", "spec.template.spec"): {"imagePullSecrets": "{{ .Values.imagePullSecrets | toJson }}"},
    ("CustomResourceDefinition", "metadata"): {"annotations": "{helm.sh/resource-policy: keep}"},
}
"""What only the chart has."""
_ABSENT = object()
_MARK = re.compile(r"^( *)(?:- )?(?:'?)@(\d+)@(?:'?)(?:: null)?$|'?@(\d+)@'?", re.MULTILINE)


class Texts:
    """Template text that stands in the tree as a mark until the YAML is written."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def mark(self, text: str) -> str:
        """Give the mark of a text."""
        self._texts.append(text)
        return f"@{len(self._texts) - 1}@"

    def resolve(self, written: str) -> str:
        """Put the texts where their marks are: a line of its own, or a value."""
        return _MARK.sub(lambda match: self._texts[int(match[2] or match[3])], written)


def render(kubectl: str, directory: pathlib.Path) -> dict[tuple[str, str, str], Any]:
    """Render a kustomization; objects by kind, namespace and name."""
    done = subprocess.run([kubectl, "kustomize", str(directory)], text=True, stdout=subprocess.PIPE, check=True)
    found = {}
    for body in yaml.load_all(done.stdout, yaml.CSafeLoader):
        found[body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"]] = body
    return found


def weave(plain: Any, variants: Mapping[str, Any], texts: Texts) -> Any:
    """Merge the plain rendering of a node of the tree with those of the components; `variants` is by condition."""
    if all(variant == plain for variant in variants.values()):
        return plain
    everything = [plain, *variants.values()]
    if all(isinstance(tree, dict) for tree in everything):
        return dict(_weave_entries(plain, variants, texts))
    if all(isinstance(tree, list) for tree in everything):
        keyed = {condition: _keyed(variant) for condition, variant in variants.items()}
        woven = _weave_entries(_keyed(plain), keyed, texts)
        return [key if value is None and key.startswith("@") else value for key, value in woven]
    text = "".join(
        f"{{{{ if {condition} }}}}{_scalar(variant)}{{{{ else }}}}" for condition, variant in _changed(plain, variants)
    )
    return texts.mark(text + _scalar(plain) + "{{ end }}" * len(_changed(plain, variants)))


def _weave_entries(plain: Mapping[str, Any], variants: Mapping[str, Any], texts: Texts) -> Iterator[tuple[str, Any]]:
    """Give the entries of all, those that some have not between a condition and its end."""
    within = ""
    for key in dict.fromkeys(itertools.chain(plain, *variants.values())):
        having = {condition: variant[key] for condition, variant in variants.items() if key in variant}
        lacking = [condition for condition in variants if condition not in having]
        if key in plain:
            test = f"not ({_any_of(lacking)})" if lacking else ""
            value = weave(plain[key], having, texts)
        else:
            test = _any_of(having)
            value, *others = having.values()
            if any(other != value for other in others):
                raise SystemExit(f"{' and '.join(having)} disagree about {key}")
        if within and within != test:
            yield texts.mark("{{- end }}"), None
        if test and within != test:
            yield texts.mark(f"{{{{- if {test} }}}}"), None
        within = test
        yield key, value
    if within:
        yield texts.mark("{{- end }}"), None


def _any_of(conditions: Collection[str]) -> str:
    return " ".join(conditions) if len(conditions) == 1 else f"or {' '.join(conditions)}"


def _changed(plain: Any, variants: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(condition, variant) for condition, variant in variants.items() if variant != plain]


def _scalar(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).split("\n", 1)[0]


def _keyed(items: list[Any]) -> dict[str, Any]:
    """Give list items by what tells them apart."""
    return {str(_name(item)): item for item in items}


def _name(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    return item.get("mountPath") or item.get("name") or yaml.safe_dump(item)


def put_expressions(body: dict[str, Any], texts: Texts) -> None:
    """Put the expressions of free values into a woven object."""
    for (kind, path), text in EXPRESSIONS.items():
        if kind == body["kind"]:
            *parents, last = path.split(".")
            node = _at(body, parents)
            assert last in node, f"{kind} has no {path}"
            node[last] = texts.mark(text)
    for (kind, path), fields in ADDITIONS.items():
        if kind == body["kind"]:
            node = _at(body, path.split("."))
            assert not fields.keys() & node.keys(), f"{kind} has one of {', '.join(fields)} of its own"
            node.update({key: texts.mark(text) for key, text in fields.items()})


def _at(node: Any, path: list[str]) -> Any:
    for part in path:
        node = next(item for item in node if _name(item) == part) if isinstance(node, list) else node[part]
    return node


def write_chart(kubectl: str, target: pathlib.Path) -> None:
    """Write the whole chart into a directory."""
    plain = render(kubectl, DEPLOY / "overlays" / "default")
    variants = {CONDITIONS[name]: render(kubectl, DEPLOY / "overlays" / name) for name in CONDITIONS}
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(DEPLOY / "helm", target)
    for key in dict.fromkeys(itertools.chain(plain, *variants.values())):
        kind, namespace, name = key
        # Helm makes the release's own namespace before it installs anything.
        if (kind, name) != ("Namespace", "vmnic-system"):
            file = "-".join(filter(None, (kind, namespace, name))).lower()
            text = _template(plain.get(key), {condition: found[key] for condition, found in variants.items() if key in found})
            (target / "templates" / f"{file}.yaml").write_text(text)


def _template(plain: Any, variants: Mapping[str, Any]) -> str:
    texts = Texts()
    body = weave(plain, variants, texts) if plain is not None else next(iter(variants.values()))
    put_expressions(body, texts)
    written = yaml.dump(body, Dumper=yaml.CSafeDumper, sort_keys=False, width=1000)
    # Alerts have templates of their own, which are Prometheus' to fill in.
    written = written.replace("{{", '{{ "{{" }}')
    test = (
        ".Values.crds.install" if body["kind"] == "CustomResourceDefinition" else next(iter(variants)) if plain is None else ""
    )
    resolved = texts.resolve(written)
    return f"{{{{- if {test} }}}}\n{resolved}{{{{- end }}}}\n" if test else resolved


if __name__ == "__main__":
    write_chart(sys.argv[1], pathlib.Path(sys.argv[2]))
