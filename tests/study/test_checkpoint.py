"""A published checkpoint becomes a student that gives the published numbers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from momkd.errors import CheckpointError
from momkd.models.packed import PackedBags
from momkd.student import load_student
from momkd.study.checkpoint import import_checkpoint

NAMES = ["public_small", "public_official_dims"]


def arrays_of(shared: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(shared / "reference" / f"{name}.npz") as archive:
        return {key: archive[key] for key in archive.files}


def state_of(arrays: dict[str, np.ndarray], prefix: str = "final/") -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): torch.from_numpy(np.array(v)) for k, v in arrays.items() if k.startswith(prefix)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrapped", [False, True])
def test_published_numbers(shared: Path, tmp_path: Path, name: str, wrapped: bool) -> None:
    arrays = arrays_of(shared, name)
    state = state_of(arrays)
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "best.pt")
    import_checkpoint(tmp_path / "best.pt", tmp_path / "student", encoder="uni_v2")
    student = load_student(tmp_path / "student")
    meta = json.loads(bytes(arrays["meta"]))
    assert student.card.model.encoder.heads == meta["heads"]
    assert student.card.classes == ("negative", "positive")
    features, edges = (torch.from_numpy(arrays[f"slide0/{key}"]) for key in ("features", "edge_index"))
    with torch.inference_mode():
        logits = student.members[0](PackedBags.pack([features], [edges])).logits
    np.testing.assert_allclose(logits.numpy(), arrays["infer1/0/logits"], atol=1e-5)


def test_a_checkpoint_without_the_rna_branch(shared: Path, tmp_path: Path) -> None:
    state = {k: v for k, v in state_of(arrays_of(shared, NAMES[0])).items() if not k.startswith("rna")}
    torch.save(state, tmp_path / "student_only.pt")
    import_checkpoint(tmp_path / "student_only.pt", tmp_path / "student")
    load_student(tmp_path / "student")


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("touch pwned",))


def test_no_pickle_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": _Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="not a plain state dict"):
        import_checkpoint(tmp_path / "evil.pt", tmp_path / "student")
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "student").exists()


def test_messages(shared: Path, tmp_path: Path) -> None:
    state = state_of(arrays_of(shared, NAMES[0]))
    path, out = tmp_path / "c.pt", tmp_path / "student"

    def refused(content: object, message: str, **options: object) -> None:
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=message):
            import_checkpoint(path, out, **options)  # type: ignore[arg-type]
        assert not out.exists()

    refused({k: v for k, v in state.items() if k != "attn_log_tau"}, "tensors are missing: attn_log_tau")
    refused(state | {"mem_pos._codebook.embed": torch.zeros(1, 3, 16)}, r"two equal shapes \(1, K, S\)")
    refused(state | {"wsi_encoder.ln1.weight": torch.zeros(3)}, r"(?s)not a MoMKD checkpoint.*size mismatch")
    refused([1, 2], "found list, expected a state dict")
    refused(state, "2 classes, 3 names were given", classes=("a", "b", "c"))
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="not a plain state dict"):
        import_checkpoint(path, out)
    with pytest.raises(CheckpointError, match="no such file"):
        import_checkpoint(tmp_path / "none.pt", out)
