"""Which programs are built for whom, and with which flags."""

import pytest

from tests.harness import packaging, programs


class Recorder(programs.Go):
    """A toolchain that records its commands."""

    def __init__(self):
        self.commands = []

    def __call__(self, directory, *arguments, cgo=False):
        self.commands.append(arguments)
        return ""


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Titles of the builds, which build nothing."""
    titles = []
    monkeypatch.setenv("VMNIC_CACHE", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setattr(programs, "_build", lambda target, title, build: titles.append(title.split()[2]))
    return titles


@pytest.mark.parametrize(
    ("ensure", "expected"),
    [
        (programs.ensure, ["etcd", "Kubernetes", "KubeVirt"]),
        (programs.ensure_promtool, ["promtool"]),
        (programs.ensure_node_programs, ["kind", "Kubernetes"]),
        (programs.ensure_guest_programs, ["KubeVirt"]),
    ],
    ids=["demo", "alerts", "kind", "guests"],
)
def test_only_what_is_asked_for_is_built(built, ensure, expected):
    ensure()
    assert built == expected


@pytest.mark.parametrize("build", [programs._build_etcd, packaging._build_helm], ids=["etcd", "helm"])
def test_all_builds_share_the_compilers_flags(tmp_path, build):
    go = Recorder()
    build(go, tmp_path, tmp_path)
    assert go.commands[0][:3] == ("build", "-trimpath", "-gcflags=all=-dwarf=false")
