"""The alert rules, evaluated by Prometheus' own promtool."""

import shutil
import subprocess

import yaml

from tests.harness.cluster import ROOT
from tests.harness.programs import ensure_promtool


def test_alerts_fire_when_they_should_and_only_then(tmp_path):
    rule = next(yaml.safe_load_all((ROOT / "deploy/observability/alerts.yaml").read_text()))
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    shutil.copy(ROOT / "tests/cluster/alerts.yaml", tmp_path)
    for arguments in (["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"], ["test", "rules", "alerts.yaml"]):
        command = [str(ensure_promtool()), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
