"""Pure: KubeVirt's objects become facts, decisions become JSON Patches."""
