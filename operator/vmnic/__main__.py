"""Commands of the container image, `vmnic controller | agent | host | simhost`."""

from __future__ import annotations

import argparse
import importlib
import sys

__all__ = ["main"]

_COMMANDS = {
    "controller": "merges pools, grants plans, decides and patches VMs",
    "agent": "prepares the NICs of one node",
    "host": "writes down what vmnic sees of this host (vmnic host record)",
    "simhost": "a simulated node with SR-IOV NICs, for trying things out",
}
_MODULES = {"host": "vmnic.agent.host_record"}
"""Module of each command that has none of its own name."""


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands, each of which has `--help`."""
    parser = argparse.ArgumentParser(
        prog="vmnic",
        description="Prepares SR-IOV NICs on Kubernetes nodes and gives KubeVirt VMs the datapath that a policy asks for.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n" + "\n".join(f"  {name:12}{text}" for name, text in _COMMANDS.items()),
    )
    parser.add_argument("command", choices=_COMMANDS, metavar="COMMAND", help="what to run; vmnic COMMAND --help says more")
    given = sys.argv[1:] if arguments is None else arguments
    # The other arguments belong to the command's own parser, also `--help`.
    command: str = parser.parse_args(given[:1]).command
    # Only the chosen command is imported: the agent's process must stay small.
    module = importlib.import_module(_MODULES.get(command, f"vmnic.{command}.main"))
    ended: int = module.main(given[1:])
    return ended


if __name__ == "__main__":
    sys.exit(main())
