"""Steps in parts: the same losses and gradients as in one; patches sampled the same way in every run."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from momkd.experiment import ModelSettings, TaskSettings, TrainSettings
from momkd.models.graph import Graph
from momkd.models.momkd import Losses, MoMKD
from momkd.models.outcome import Nominal
from momkd.training import batches as batches_module
from momkd.training.batches import Step, pack_all, training_steps, within_budget
from momkd.training.fit import fit
from momkd.training.samples import BagCache, FitData, OmicsRows, PreparedBag, Rows, Sample
from momkd.training.seeds import derive_seed

CPU = torch.device("cpu")
NO_DROPOUT = ModelSettings.model_validate(
    {
        "encoder": {"dim": 16, "dropout": 0.0, "attention_dropout": 0.0},
        "rna": {"hidden": 16, "dim": 8, "dropout": 0.0},
        "memory": {"codes": 3, "dim": 8},
        "classifier": {"hidden": 8, "dropout": 0.0},
    }
)
TASK = TaskSettings(label="status", classes=("negative", "positive"))
TRAIN = TrainSettings(epochs=4, patience=4, lr=5e-3, batch_size=8, seed=3, threads=1, accelerator="cpu")


def bag_of(slide_id: str, dtype: torch.dtype = torch.float32) -> PreparedBag:
    rng = np.random.default_rng(derive_seed(0, slide_id) % 2**32)
    n = int(rng.integers(3, 12))
    features = torch.from_numpy(rng.normal(size=(n, 5)).astype(np.float32))
    features[0, 0] += 4.0 * (int(slide_id[1:]) % 2)
    ring = torch.stack([torch.arange(n), (torch.arange(n) + 1) % n])
    return PreparedBag(features.to(dtype), Graph.from_edges(ring, len(features)))


def part_of(slide_id: str, rows: torch.Tensor) -> PreparedBag:
    return PreparedBag(
        bag_of(slide_id).features[rows], Graph.from_edges(torch.empty(2, 0, dtype=torch.int64), len(rows))
    )


def make_data(dtype: torch.dtype = torch.float32, prepare: Callable[[str], PreparedBag] | None = None) -> FitData:
    train, val = ([Sample(f"{name}{i}", f"{name}{i}", i % 2) for i in range(n)] for name, n in (("t", 20), ("v", 10)))
    rng = np.random.default_rng(0)
    rna = {s.patient_id: rng.normal(size=6).astype(np.float32) for s in train if int(s.patient_id[1:]) % 3}
    whole = prepare or (lambda slide_id: bag_of(slide_id, dtype))
    cache = BagCache(whole, prepare_part=part_of, n_patches=lambda slide_id: bag_of(slide_id).n_patches)
    return FitData(train, val, cache, TASK, 5, {"rna": OmicsRows(tuple("abcdef"), Rows.of(rna))})


def steps_of(data: FitData, epoch: int = 1, **changes: object) -> list[Step]:
    return list(training_steps(data.train, data, Nominal(2), TRAIN.model_copy(update=changes), CPU, epoch))


def gradients(model: MoMKD, step: Step) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The gradient of every weight, and the step's losses."""
    model.zero_grad()
    values = torch.zeros(len(Losses.__dataclass_fields__))
    for batch in step.batches:
        losses = model(batch.bags, batch.lesson)
        losses.total.backward()
        values += torch.stack([getattr(losses, name).detach() for name in Losses.__dataclass_fields__])
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, values.tolist()


@pytest.mark.parametrize("budget", [1, 20, 35])
@pytest.mark.parametrize("with_rna", [True, False])
def test_parts_add_up_to_the_step(budget: int, with_rna: bool) -> None:
    data = make_data()
    if not with_rna:
        data = FitData(data.train, data.val, data.bags, TASK, 5)
    torch.manual_seed(0)
    model = MoMKD(5, Nominal(2), NO_DROPOUT, data.genes)
    in_one, in_parts = steps_of(data), steps_of(data, max_patches_per_step=budget)
    assert all(len(step.batches) == 1 for step in in_one)
    assert any(len(step.batches) > 1 for step in in_parts)
    for whole, parts in zip(in_one, in_parts, strict=True):
        sizes = [len(batch.bags.features) for batch in parts.batches]
        assert sum(sizes) == len(whole.batches[0].bags.features)
        assert all(size <= budget or batch.bags.n_bags == 1 for size, batch in zip(sizes, parts.batches, strict=True))
        expected, losses = gradients(model, whole)
        found, part_losses = gradients(model, parts)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            assert (found[name] - gradient).abs().max() <= 1e-6 * max(1.0, float(gradient.abs().max()))
        assert part_losses == pytest.approx(losses, rel=1e-5)


def test_a_fit_in_parts_is_the_fit() -> None:
    whole, parts = (
        fit(make_data(), NO_DROPOUT, TRAIN.model_copy(update={"max_patches_per_step": n})) for n in (None, 9)
    )
    for a, b in zip(whole.history, parts.history, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-4)


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 60))
def test_runs_keep_order_and_budget(sizes: list[int], most: int) -> None:
    runs = within_budget(sizes, most)
    assert [size for run in runs for size in sizes[run]] == sizes
    assert all(sum(sizes[run]) <= most or len(sizes[run]) == 1 for run in runs)
    for run, following in pairwise(runs):
        assert sum(sizes[run]) + sizes[following.start] > most, "a run ends only where the next slide does not fit"


def test_large_slides_are_sampled_the_same_for_one_seed_epoch_and_slide() -> None:
    data = make_data()
    first, again = steps_of(data, 1, max_patches_per_slide=4), steps_of(data, 1, max_patches_per_slide=4)
    later = steps_of(data, 2, max_patches_per_slide=4)
    packed = [torch.cat([step.batches[0].bags.features for step in steps]) for steps in (first, again, later)]
    assert torch.equal(packed[0], packed[1])
    assert not torch.equal(packed[0], packed[2])
    for step in first:
        bags = step.batches[0].bags
        for sample, size, rows in zip(
            step.samples, bags.ptr.diff().tolist(), bags.features.split(bags.ptr.diff().tolist()), strict=True
        ):
            whole = bag_of(sample.slide_id).features
            assert size == min(4, len(whole))
            place = [(whole == row).all(1).nonzero().item() for row in rows]
            assert place == sorted(set(place))
    whole = next(iter(pack_all(data.val, data.bags, CPU)))[1]
    assert len(whole.features) == sum(bag_of(sample.slide_id).n_patches for sample in data.val)


def test_bags_that_cannot_be_had_in_parts() -> None:
    data = make_data()
    plain = FitData(data.train, data.val, BagCache(bag_of), TASK, 5)
    with pytest.raises(ValueError, match="max_patches_per_slide"):
        steps_of(plain, max_patches_per_slide=2)


def test_a_thread_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    direct = fit(make_data(), NO_DROPOUT, TRAIN)
    monkeypatch.setattr(batches_module, "_SMALL_BAG", -1)
    threaded = fit(make_data(), NO_DROPOUT, TRAIN)
    assert threaded.history == direct.history
    for name, value in direct.model.state_dict().items():
        assert torch.equal(value, threaded.model.state_dict()[name])


def test_an_error_of_reading_reaches_the_caller() -> None:
    def broken(slide_id: str) -> PreparedBag:
        raise OSError(f"{slide_id}: gone")

    with pytest.raises(OSError, match="gone"):
        fit(make_data(prepare=broken), NO_DROPOUT, TRAIN)


def test_half_precision_features_give_the_values_of_their_float32_copy() -> None:
    half = fit(make_data(torch.float16), NO_DROPOUT, TRAIN)
    wide = fit(make_data(prepare=lambda name: _widened(bag_of(name, torch.float16))), NO_DROPOUT, TRAIN)
    assert half.history == wide.history


def _widened(bag: PreparedBag) -> PreparedBag:
    return PreparedBag(bag.features.float(), bag.graph)


def test_bfloat16_trains_keeps_float32_weights_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a CPU without tiles the products would quietly stay in float32, being faster.
    monkeypatch.setattr("momkd.models.products.bfloat16_is_fast", lambda: True)
    settings = TRAIN.model_copy(update={"precision": "bf16", "epochs": 8, "patience": 8})
    first, second, full = (
        fit(make_data(), NO_DROPOUT, s) for s in (settings, settings, settings.model_copy(update={"precision": "32"}))
    )
    assert first.history == second.history
    assert all(value.dtype == torch.float32 for value in first.model.parameters())
    assert first.history[0]["loss_total"] != full.history[0]["loss_total"], "bfloat16 was used"
    assert first.history[0]["loss_total"] == pytest.approx(full.history[0]["loss_total"], rel=0.05)
    assert first.history[-1]["loss_total"] < first.history[0]["loss_total"]
