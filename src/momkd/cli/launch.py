"""--devices: the same command again, once a device, under torchrun."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import typer

from momkd.errors import ClusterError


def launch(devices: int, nodes: int, arguments: Sequence[str] | None = None) -> bool:
    """Start this command once a device and wait; False where it is to be done by this process itself.

    That is where one device is asked for, and in a process that torchrun or Slurm has started. Raises ClusterError for
    several nodes, which only their scheduler can start.
    """
    from momkd.training.ranks import started_together

    if started_together() > 1 or devices * nodes == 1:
        return False
    if nodes > 1:
        raise ClusterError(
            f"--nodes {nodes}: this machine cannot start processes on others → on each node: torchrun --nnodes {nodes} "
            f"--nproc-per-node {devices} --rdzv-endpoint HOST:PORT -m momkd …, or srun --ntasks-per-node {devices} "
            "momkd … in a job of Slurm; the same command, with the run on a shared disk"
        )
    given = _without(list(sys.argv[1:] if arguments is None else arguments), ("--devices", "--nodes"))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(devices), "-m", "momkd"]
    code = subprocess.run([sys.executable, *torchrun, *given], check=False).returncode  # noqa: S603 - our own command
    if code:
        raise typer.Exit(code if code > 0 else 1)
    return True


def _without(arguments: list[str], names: Sequence[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in arguments:
        if skip:
            skip = False
        elif word in names:
            skip = True
        elif not word.startswith(tuple(f"{name}=" for name in names)):
            kept.append(word)
    return kept
