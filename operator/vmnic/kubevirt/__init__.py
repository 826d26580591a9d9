"""Pure conversions of KubeVirt's objects to facts, and of decisions to JSON Patches."""
