"""Two processes that share every step of a fit learn what one process learns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from momkd.errors import TrainingError
from momkd.files import read_json
from momkd.training.ranks import Ranks, started_together

CohortMaker = Callable[..., Path]
# A step of eight slides, nothing random in it; twenty steps and more.
SAME = [
    "model.encoder.dropout=0.0",
    "model.classifier.dropout=0.0",
    "train.members=1",
    "train.epochs=5",
    "train.patience=5",
    "cv.folds=2",
    "train.accelerator=cpu",
]
MEMORIES = {
    "gradient": ["model.memory.update=gradient"],
    "ema": ["model.memory.update=ema"],
    "hybrid": ["model.memory.update=hybrid"],
    "queue": ["model.memory.update=queue"],
}


def momkd(*arguments: str) -> str:
    found = subprocess.run([sys.executable, "-m", "momkd", *arguments], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.parametrize("memory", MEMORIES)
def test_two_processes_are_one(make_cohort: CohortMaker, tmp_path: Path, memory: str) -> None:
    from safetensors.torch import load_file

    file = make_cohort(tmp_path / "cohort")
    sets = [word for one in (*SAME, *MEMORIES[memory]) for word in ("--set", one)]
    momkd("fit", str(file), "--out", str(tmp_path / "one"), *sets)
    momkd("fit", str(file), "--out", str(tmp_path / "two"), *sets, "--devices", "2")
    one, two = (load_file(tmp_path / name / "fold-0-0" / "student" / "student.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) <= 1e-5
    history = [read_json(tmp_path / name / "fold-0-0" / "fold.json")["epochs"] for name in ("one", "two")]
    assert history[0] == history[1] == 5
    assert "auc" in json.dumps(read_json(tmp_path / "two" / "metrics.json"))


def test_parts_follow_one_another() -> None:
    for count in (1, 2, 7, 16):
        parts = [list(range(count))[Ranks(rank, 3).share(count)] for rank in range(3)]
        assert [number for part in parts for number in part] == list(range(count))


def test_alone_nothing_is_summed() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    losses = torch.tensor([1.0, 2.0])
    assert Ranks().add_up([parameter], losses) is losses
    assert parameter.grad is None


def test_more_processes_than_slides_of_a_step() -> None:
    with pytest.raises(TrainingError, match="4 processes share steps of 2 slides; raise train.batch_size"):
        Ranks(0, 4).check(2)


def test_who_started_us() -> None:
    assert started_together({}) == 1
    assert started_together({"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "a"}) == 4
    assert started_together({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_NAME": "train"}) == 8
    assert started_together({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_NAME": "interactive"}) == 1


def test_other_machines_are_started_by_others(make_cohort: CohortMaker, tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "momkd", "fit", "E.yaml", "--out", "x", "--nodes", "2"], capture_output=True, text=True
    )
    assert found.returncode == 1
    assert "torchrun --nnodes 2" in " ".join(found.stderr.split())
