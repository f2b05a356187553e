"""The memory in a fit: each option changes what it should and only that, and what a history says of it is true."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from momkd.errors import TrainingError
from momkd.experiment import ModelSettings, TaskSettings, TrainSettings
from momkd.models.graph import Graph
from momkd.models.momkd import MoMKD
from momkd.models.outcome import Nominal
from momkd.training.diagnostics import memory_row
from momkd.training.fit import FitResult, fit
from momkd.training.samples import BagCache, FitData, OmicsRows, PreparedBag, Rows, Sample
from momkd.training.seeds import derive_seed

Memory = dict[str, Any]

CODES = "student.memory.codes"
# One step of all slides: after it, only what the option acts on can differ.
ONE_STEP = TrainSettings(epochs=1, batch_size=99, lr=5e-3, clip=0, seed=3, threads=1, accelerator="cpu")
SHORT = TrainSettings(epochs=5, patience=5, lr=5e-3, batch_size=4, seed=3, threads=1, accelerator="cpu")


def settings(memory: Memory | None = None, loss: dict[str, float] | None = None) -> ModelSettings:
    return ModelSettings.model_validate(
        {
            "encoder": {"dim": 8, "dropout": 0.2, "attention_dropout": 0.2},
            "rna": {"hidden": 8, "dim": 6},
            "memory": {"codes": 3, "dim": 6, **(memory or {})},
            "classifier": {"hidden": 6, "dropout": 0.2},
            "loss": loss or {},
        }
    )


def bag_of(slide_id: str, label: int) -> PreparedBag:
    rng = np.random.default_rng(derive_seed(0, slide_id) % 2**32)
    features = rng.normal(size=(3, 5)).astype(np.float32)
    features[1, 0] += 4.0 * label
    return PreparedBag(torch.from_numpy(features), Graph.from_edges(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3))


def cohort(n_classes: int = 2, *, omics: bool = True) -> FitData:
    train = [Sample(f"t{i:02d}", f"t{i:02d}-0", i % n_classes) for i in range(18)]
    val = [Sample(f"v{i:02d}", f"v{i:02d}-0", i % n_classes) for i in range(9)]
    label = {sample.slide_id: sample.label for sample in train + val}
    rng = np.random.default_rng(0)
    rna = {s.patient_id: (rng.normal(size=6) + 2.0 * s.label).astype(np.float32) for s in train[3:]}
    cache = BagCache(lambda slide_id: bag_of(slide_id, label[slide_id]))
    task = TaskSettings(label="status", classes=("negative", "positive", "other")[:n_classes])
    return FitData(train, val, cache, task, 5, {"rna": OmicsRows(tuple("abcdef"), Rows.of(rna))} if omics else {})


@pytest.fixture(scope="module")
def data() -> FitData:
    return cohort()


def weights(result: FitResult) -> dict[str, Tensor]:
    return result.model.state_dict()


def differing(left: FitResult, right: FitResult) -> set[str]:
    a, b = weights(left), weights(right)
    assert a.keys() == b.keys()
    return {name for name in a if not torch.equal(a[name], b[name])}


@pytest.fixture(scope="module")
def base(data: FitData) -> FitResult:
    return fit(data, settings(), ONE_STEP)


@pytest.mark.parametrize(
    "memory",
    [
        {"update": "fixed"},
        {"update": "ema"},
        {"update": "hybrid"},
        {"update": "queue"},
        {"lr_mult": 10.0},
        {"orthogonality": "across"},
        {"orthogonality": "both"},
        {"orthogonality": "none"},
        {"decoupling": {"classifier": 0.0}},
        {"decoupling": {"rna": 1.0}},
        {"decoupling": {"slide": 1.0}},
    ],
    ids=str,
)
def test_what_moves_the_codes_moves_nothing_else(data: FitData, base: FitResult, memory: Memory) -> None:
    changed = differing(fit(data, settings(memory), ONE_STEP), base)
    assert changed - {"updates.mass"} == {CODES}


def test_momentum_is_of_the_codes_and_a_lower_one_moves_them_further(data: FitData) -> None:
    fits = [fit(data, settings({"update": "ema", "momentum": m}), ONE_STEP) for m in (0.99, 0.9, 0.5)]
    assert differing(fits[0], fits[1]) == {CODES, "updates.mass"}
    drift = [one.history[0]["memory_drift"] for one in fits]
    assert 0.0 < drift[0] < drift[1] < drift[2]


def test_a_higher_learning_rate_of_the_codes_moves_them_further(data: FitData) -> None:
    drift = [fit(data, settings({"lr_mult": f}), ONE_STEP).history[0]["memory_drift"] for f in (0.1, 1.0, 10.0)]
    assert 0.0 < drift[0] < drift[1] < drift[2]


def test_the_offset_changes_no_training(data: FitData, base: FitResult) -> None:
    other = fit(data, settings({"offset": False}), ONE_STEP)
    for name, value in weights(base).items():
        torch.testing.assert_close(weights(other)[name], value, rtol=1e-4, atol=1e-5)
    assert other.history[0]["loss_total"] == pytest.approx(base.history[0]["loss_total"], rel=1e-6)


def test_a_fixed_temperature_stays_and_changes_nothing_else_in_a_step(data: FitData, base: FitResult) -> None:
    fixed = fit(data, settings({"learn_temperature": False}), ONE_STEP)
    assert differing(fixed, base) == {"student.log_temperature"}
    assert fixed.history[0]["temperature"] == pytest.approx(0.2)
    later = fit(data, settings({"learn_temperature": False, "temperature": 0.7}), SHORT).history
    assert [row["temperature"] for row in later] == pytest.approx([0.7] * len(later))
    learnt = fit(data, settings(), SHORT).history
    assert abs(learnt[-1]["temperature"] - 0.2) > 1e-4


@pytest.mark.parametrize("memory", [{"margin": 0.6}, {"alignment_scale": 5.0}, {"sharpness": 10.0}], ids=str)
def test_the_alignment_options_leave_classifier_decoder_and_first_epoch_s_task_loss(
    data: FitData, base: FitResult, memory: Memory
) -> None:
    other = fit(data, settings(memory), ONE_STEP)
    changed = differing(other, base)
    assert CODES in changed
    assert not [name for name in changed if "classifier" in name or "decoder" in name]
    same, moved = ("task", "memory", "reconstruction"), ("rna", "slide")
    first, second = base.history[0], other.history[0]
    assert all(first[f"loss_{name}"] == second[f"loss_{name}"] for name in same)
    assert all(first[f"loss_{name}"] != second[f"loss_{name}"] for name in moved)


def test_codes_and_dim_are_the_shape(data: FitData) -> None:
    codes = weights(fit(data, settings({"codes": 4, "dim": 7}), ONE_STEP))[CODES]
    assert codes.shape == (2, 4, 7)


@pytest.mark.parametrize("update", ["gradient", "ema", "hybrid", "fixed", "queue"])
def test_what_each_rule_leaves(data: FitData, update: str) -> None:
    result = fit(data, settings({"update": update}), SHORT)
    codes, initial = weights(result)[CODES], weights(result)["updates.initial"]
    assert torch.equal(codes, initial) == (update == "fixed")
    assert (result.history[-1]["memory_drift"] > 1e-5) == (update != "fixed")
    if update in ("ema", "queue"):
        torch.testing.assert_close(codes.norm(dim=-1), torch.ones(2, 3))


def test_more_codes_than_dimensions_warn_of_the_floor(data: FitData, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        result = fit(data, settings({"codes": 8, "dim": 4}), ONE_STEP)
        assert "cannot fall below 1/dim − 1/codes = 0.1250" in caplog.text
        assert float(result.model.student.memory.orthogonality().detach().min()) >= 0.125 - 1e-6
        caplog.clear()
        fit(data, settings({"codes": 4, "dim": 4}), ONE_STEP)
    assert caplog.text == ""


def test_an_option_that_no_loss_uses_warns(data: FitData, caplog: pytest.LogCaptureFixture) -> None:
    off = {"memory": 0.0, "rna": 0.0, "slide": 0.0}
    with caplog.at_level(logging.WARNING):
        plain = fit(data, settings(loss=off), ONE_STEP)
        assert caplog.text == ""
        asked = fit(data, settings({"update": "ema"}, off), ONE_STEP)
    assert "no loss uses the memory" in caplog.text
    assert differing(plain, asked) == set()
    assert not [name for name in asked.history[0] if name.startswith("memory_")]


def test_the_control_without_omics_warns_alike(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fit(cohort(omics=False), settings({"update": "queue"}), ONE_STEP)
    assert "no loss uses the memory (there are no omics)" in caplog.text


# Initialisation


def test_random_codes_start_elsewhere_than_those_of_the_k_means(data: FitData, base: FitResult) -> None:
    random = fit(data, settings({"init": "random"}), ONE_STEP)
    assert {CODES, "updates.initial"} <= differing(random, base)
    # The k-means starts where the patches are, so patches are near their codes.
    assert base.history[0]["loss_memory"] < random.history[0]["loss_memory"]


def test_few_patches_of_the_k_means_give_other_codes(data: FitData, base: FitResult) -> None:
    few = fit(data, settings({"init_patches": 9}), ONE_STEP)
    assert "updates.initial" in differing(few, base)


WARM: Memory = {"init": "warmup", "warmup_epochs": 2}


def test_warm_up(data: FitData, tmp_path: Path) -> None:
    """Two epochs without memory, its codes standing still; then k-means, and every loss."""
    seen: list[Tensor] = []
    point = tmp_path / "state.safetensors"

    def look(row: dict[str, float]) -> None:
        if row["epoch"] > 1:
            seen.append(load_file(point)[f"model.{CODES}"])

    result = fit(data, settings(WARM), SHORT, resume_file=point, save_every_seconds=0.0, on_epoch=look)
    for row in result.history[:2]:
        assert row["loss_memory"] == row["loss_rna"] == row["loss_slide"] == 0.0
        assert row["loss_reconstruction"] > 0.0
        assert not [name for name in row if name.startswith("memory_")]
    for row in result.history[2:]:
        assert min(row["loss_memory"], row["loss_rna"], row["loss_slide"]) > 0.0
        assert row["memory_drift"] > 0.0
    assert torch.equal(seen[0], seen[1])  # after epochs 1 and 2
    assert not torch.equal(seen[1], seen[2])


def test_an_epoch_without_memory_is_neither_kept_nor_waited_for(data: FitData) -> None:
    train = SHORT.model_copy(update={"epochs": 8, "patience": 1, "lr": 1e-9})
    result = fit(data, settings({"init": "warmup", "warmup_epochs": 4}), train)
    assert result.best_epoch > 4
    assert "memory_drift" in result.history[result.best_epoch - 1]


def test_a_warm_up_as_long_as_the_fit_is_refused(data: FitData) -> None:
    with pytest.raises(TrainingError, match=r"the first 5 epochs only prepare .* there are 5; raise train.epochs"):
        fit(data, settings({"init": "warmup", "warmup_epochs": 5}), SHORT)


# Revival


def test_idle_codes_are_revived(data: FitData) -> None:
    """Codes that face away from every query win nothing, and are taken to where queries are."""
    crowded: Memory = {"codes": 12, "init": "random", "update": "ema", "momentum": 0.9}
    never = fit(data, settings(crowded), SHORT).history
    soon = fit(data, settings(crowded | {"revive": 1}), SHORT).history
    assert soon[0] == never[0]  # the first revival comes after the first epoch

    def active(row: dict[str, float]) -> float:
        return row["memory_active_0"] + row["memory_active_1"]

    assert active(never[-1]) < 24
    assert active(soon[-1]) > active(never[-1])


# Resuming


class _Killed(Exception):
    pass


def killer(after_epoch: int) -> Callable[[dict[str, float]], None]:
    def on_epoch(row: dict[str, float]) -> None:
        if row["epoch"] == after_epoch:
            raise _Killed

    return on_epoch


@pytest.mark.parametrize(
    "memory",
    [
        {"update": "gradient", "revive": 2},
        {"update": "ema", "momentum": 0.9},
        {"update": "ema", "momentum": 0.9, "revive": 2, "codes": 5},
        {"update": "hybrid", "momentum": 0.9, "revive": 1},
        {"update": "fixed"},
        {"update": "queue"},
        WARM,
        WARM | {"update": "ema"},
    ],
    ids=str,
)
@pytest.mark.parametrize("after_epoch", [2, 4])
def test_resumed_equals_uninterrupted(data: FitData, tmp_path: Path, memory: Memory, after_epoch: int) -> None:
    point, chosen = tmp_path / "state.safetensors", settings(memory)
    with pytest.raises(_Killed):
        fit(data, chosen, SHORT, resume_file=point, save_every_seconds=0.0, on_epoch=killer(after_epoch))
    resumed, whole = fit(data, chosen, SHORT, resume_file=point), fit(data, chosen, SHORT)
    assert differing(resumed, whole) == set()
    assert resumed.history == whole.history


# Diagnostics


def test_the_columns_of_a_history(data: FitData) -> None:
    by_class = {f"memory_{name}_{label}" for name in ("perplexity", "active") for label in range(2)}
    by_origin = {f"memory_{name}_{origin}" for name in ("margin", "auc") for origin in ("rna", "slide")}
    geometry = {"memory_drift", "memory_within_cosine", "memory_across_cosine", "memory_attention_entropy"}
    for row in fit(data, settings(), SHORT).history:
        assert {name for name in row if name.startswith("memory_")} == by_class | by_origin | geometry
        for label in range(2):
            assert 1.0 <= row[f"memory_perplexity_{label}"] <= row[f"memory_active_{label}"] + 1e-9 <= 3.0 + 1e-9
        for name in ("memory_auc_rna", "memory_margin_slide", "memory_attention_entropy"):
            assert 0.0 <= row[name] <= 1.0


def test_three_classes_have_three_codebooks_and_no_auc() -> None:
    result = fit(cohort(3), settings({"update": "ema"}), SHORT)
    row = result.history[-1]
    assert weights(result)[CODES].shape == (3, 3, 6)
    assert {"memory_active_2", "memory_margin_rna", "memory_across_cosine"} <= row.keys()
    assert "memory_auc_rna" not in row


def on_axes(memory: Memory | None = None) -> MoMKD:
    """Class 0 has the codes x and y, class 1 the codes z and −x; they were placed with class 0's second on z."""
    torch.manual_seed(0)
    chosen = settings({"codes": 2, "dim": 3, "margin": 0.3, "sharpness": 5.0, **(memory or {})})
    model = MoMKD(5, Nominal(2), chosen, {"rna": 6})
    x, y, z = torch.eye(3)
    model.student.memory.set_codes(0, torch.stack([x, z]))
    model.student.memory.set_codes(1, torch.stack([z, -x]))
    assert model.updates is not None
    model.updates.start_from(model.student.memory)
    model.student.memory.set_codes(0, torch.stack([2.0 * x, y]))
    model.begin_memory(warming=False)
    return model


def seen_by(model: MoMKD) -> dict[str, float]:
    """What three bags, of which two have RNA, and a bag of unknown class give."""
    x, y, z = torch.eye(3)
    slides, labels = torch.stack([x, y, y, -y]), torch.tensor([0, 0, 1, -1])
    paired = torch.tensor([True, False, True, False])
    assert model.updates is not None
    model.updates.observe(slides, labels, [(torch.stack([x, z]), paired)])
    model.updates.observe_attention(
        torch.tensor([0.5, 0.5, 1.0, 0.0]), torch.tensor([0, 2, 4]), torch.tensor([0, 0, 1, 1])
    )
    return memory_row(model)


def test_diagnostics_by_hand() -> None:
    row = seen_by(on_axes())
    # Class 0: x, y of slides and x of RNA, so shares 2/3 and 1/3. Class 1: y is as near to z as to −x, the first wins.
    assert row["memory_active_0"] == 2.0
    assert row["memory_perplexity_0"] == pytest.approx(math.exp(-(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)))
    assert row["memory_active_1"] == 1.0
    assert row["memory_perplexity_1"] == pytest.approx(1.0)
    # One of four codes was placed at a right angle to where it is: 1 − cos is 0, 1, 0, 0.
    assert row["memory_drift"] == pytest.approx(0.25)
    assert row["memory_within_cosine"] == pytest.approx(0.0, abs=1e-7)
    # x·z, x·(−x), y·z, y·(−x).
    assert row["memory_across_cosine"] == pytest.approx(-0.25)
    # RNA: Δ of x for class 0 and of z for class 1 are both far above .3.
    assert row["memory_margin_rna"] == 1.0
    assert row["memory_auc_rna"] == 1.0
    # Slides: x has its margin; y of class 0 too (ln((e⁵ + 1)/2)/5); y of class 1 has the same with the other sign.
    assert row["memory_margin_slide"] == pytest.approx(2 / 3)
    # φ(c¹) − φ(c⁰): x lowest, and y of class 0 and of class 1 alike: one pair of two in order, one tied.
    assert row["memory_auc_slide"] == pytest.approx(0.75)
    # Uniform over two patches, and all on one.
    assert row["memory_attention_entropy"] == pytest.approx(0.5)


def test_a_margin_that_nobody_meets() -> None:
    row = seen_by(on_axes({"margin": 1.9}))
    assert row["memory_margin_rna"] == row["memory_margin_slide"] == 0.0


def test_a_column_that_has_nothing_to_tell_is_left_out() -> None:
    model = on_axes()
    assert model.updates is not None
    model.updates.observe(functional.normalize(torch.ones(2, 3), dim=-1), torch.tensor([1, 1]), [])
    row = memory_row(model)
    assert {"memory_active_1", "memory_margin_slide", "memory_drift"} <= row.keys()
    absent = {"memory_active_0", "memory_margin_rna", "memory_auc_rna", "memory_auc_slide", "memory_attention_entropy"}
    assert not absent & row.keys()


def test_no_rows_while_warming_and_without_omics() -> None:
    model = on_axes()
    model.begin_memory(warming=True)
    assert memory_row(model) == {}
    assert memory_row(MoMKD(5, Nominal(2), settings(), {})) == {}
