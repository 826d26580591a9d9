"""Alerts and dashboards use metrics that are served, and every alert has a runbook."""

import json
import pathlib
import re

import yaml

from vmnic.agent.metrics import AGENT_METRICS
from vmnic.controller.metrics import CONTROLLER_METRICS

ROOT = pathlib.Path(__file__).parents[3]
HERE = ROOT / "deploy" / "observability"
METRICS = {metric.name: metric for metric in (*CONTROLLER_METRICS, *AGENT_METRICS)}


def alerts():
    (group,) = yaml.safe_load((HERE / "alerts.yaml").read_text())["spec"]["groups"]
    return group["rules"]


def expressions():
    panels = json.loads((HERE / "dashboard.json").read_text())["panels"]
    return [alert["expr"] for alert in alerts()] + [one["expr"] for panel in panels for one in panel.get("targets", [])]


def test_every_used_metric_is_served():
    used = {re.sub(r"_(bucket|count|sum)$", "", name) for text in expressions() for name in re.findall(r"\bvmnic_\w+", text)}
    assert used - METRICS.keys() == set()
    assert METRICS.keys() - used == set(), "nobody looks at these"


def test_every_used_label_belongs_to_its_metric():
    for text in expressions():
        for name, matchers in re.findall(r"\b(vmnic_\w+)\{([^}]*)\}", text):
            labels = set(re.findall(r"(\w+)\s*[!=]", matchers))
            assert labels <= METRICS[re.sub(r"_(bucket|count|sum)$", "", name)].labels.keys(), text


def test_every_alert_has_a_severity_and_a_matching_runbook():
    for alert in alerts():
        assert alert["labels"]["severity"] in ("info", "warning", "critical")
        page = (ROOT / alert["annotations"]["runbook_url"]).read_text()
        assert f"# {alert['alert']}\n" in page
        assert alert["expr"] in page
        assert {"## What it means", "## What to do"} <= set(page.splitlines())


def test_every_runbook_belongs_to_an_alert():
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("Vmnic*.md")}
    assert pages == {alert["alert"] for alert in alerts()}
