"""Reader of what a process serves to Prometheus."""

from prometheus_client.parser import text_string_to_metric_families


def families(text):
    """Return the metric families by their documented name, without Prometheus' own process metrics."""
    found = {}
    for family in text_string_to_metric_families(text):
        name = family.name + ("_total" if family.type == "counter" else "")
        if not name.startswith("process_"):
            found[name] = family
    return found


def labels_of(family):
    """Return the label names of a family's samples, without the extra label of buckets."""
    return {name for sample in family.samples for name in sample.labels} - {"le"}


def value(text, name, **labels):
    """Return the value of one sample, or None if there is none."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def differences(text, declared):
    """Describe how the served metrics differ from the declared ones."""
    served = families(text)
    wrong = [f"{name} is not declared" for name in served.keys() - {metric.name for metric in declared}]
    for metric in declared:
        family = served.get(metric.name)
        if family is None:
            wrong.append(f"{metric.name} is not served")
        elif family.type != metric.type or family.documentation != metric.text:
            wrong.append(f"{metric.name}: {family.type}, {family.documentation}")
        elif family.samples and labels_of(family) != set(metric.labels):
            wrong.append(f"{metric.name} has labels {labels_of(family)}")
    return wrong
