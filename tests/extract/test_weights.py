"""Weight files: tensors only, all of them, or a message that says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from momkd.errors import ExtractError
from momkd.extract.weights import load_weights, read_weights, weights_digest


class Surprise:
    """Would run code if it were unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("executed",))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


@pytest.mark.parametrize("form", ["safetensors", "bare", "wrapped", "prefixed", "nested"])
def test_every_form_gives_the_same_weights(tmp_path: Path, form: str) -> None:
    weights = net().state_dict()
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file(weights, path)
    else:
        renamed = {f"module.{k}": v for k, v in weights.items()}
        deeper = {f"module.backbone.{k}": v for k, v in weights.items()}
        content = {"bare": weights, "wrapped": {"model": weights, "epoch": 3}, "prefixed": renamed, "nested": deeper}
        torch.save(content[form], path)
    read = read_weights(path)
    other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    load_weights(other, read, path, "net")
    assert weights_digest(other) == weights_digest(net())


def test_a_pickle_is_not_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": Surprise()}, tmp_path / "bad.pt")
    with pytest.raises(ExtractError, match="cannot be read as tensors alone.*save its state dict alone"):
        read_weights(tmp_path / "bad.pt")
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all"])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_damaged_files_are_errors(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExtractError, match=rf"w\.{name[2:]}: (cannot be read|not a safetensors)"):
        read_weights(tmp_path / name)


def test_other_things_than_a_state_dict(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "t.pt")
    with pytest.raises(ExtractError, match="a Tensor; expected a state dict"):
        read_weights(tmp_path / "t.pt")
    torch.save({"w": torch.zeros(3), "lr": 0.1, "step": 4}, tmp_path / "m.pt")
    with pytest.raises(ExtractError, match=r"2 entries that are no tensors \(lr, step\)"):
        read_weights(tmp_path / "m.pt")
    with pytest.raises(ExtractError, match="no such file"):
        read_weights(tmp_path / "none.pt")


def test_weights_of_another_network_are_named() -> None:
    weights = {"0.weight": torch.zeros(2, 4), "0.bias": torch.zeros(2), "head.weight": torch.zeros(1)}
    with pytest.raises(ExtractError) as raised:
        load_weights(net(), weights, "file.pt", "net")
    text = str(raised.value)
    assert "not the weights of net: 5 missing (1.bias, 1.num_batches_tracked, 1.running_mean (+ 2 more))" in text
    assert "1 unexpected (head.weight)" in text
    assert "1 of another shape (0.weight (2, 4) for (2, 3))" in text


def test_digest_knows_values_names_and_types() -> None:
    digests = {weights_digest(net()), weights_digest(net().double())}
    other = net()
    with torch.no_grad():
        other[0].bias[0] += 1e-6
    digests |= {weights_digest(other), weights_digest(nn.ModuleDict({"a": net()}))}
    assert len(digests) == 4
    assert weights_digest(net()) == weights_digest(net())
