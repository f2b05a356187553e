"""The strength of each crossing into the memory: 0 and 1 are the rows of the paper's table, between them a share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from momkd.experiment import ModelSettings
from momkd.models.momkd import Lesson, Losses, MoMKD
from momkd.models.outcome import Nominal
from momkd.models.packed import PackedBags

CROSSINGS = {"classifier": "task", "rna": "rna", "slide": "slide"}
PUBLISHED = {"classifier": 1.0, "rna": 0.0, "slide": 0.0}


def model(n_classes: int = 2, **decoupling: float) -> MoMKD:
    torch.manual_seed(0)
    settings = ModelSettings.model_validate(
        {
            "encoder": {"dim": 16, "dropout": 0.0, "attention_dropout": 0.0},
            "rna": {"hidden": 12, "dim": 8, "dropout": 0.0},
            "memory": {"codes": 3, "dim": 6, "decoupling": decoupling},
            "classifier": {"hidden": 8, "dropout": 0.0},
        }
    )
    return MoMKD(5, Nominal(n_classes), settings, {"rna": 7})


def losses(one: MoMKD) -> Losses:
    torch.manual_seed(1)
    ring = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
    bags = PackedBags.pack([torch.randn(6, 5), torch.randn(6, 5)], [ring, ring])
    paired = torch.tensor([True, True])
    found: Losses = one(bags, Lesson.of_classes(torch.tensor([1, 0]), torch.randn(2, 7), paired))
    return found


def gradients(one: MoMKD, name: str) -> dict[str, Tensor]:
    """The gradient of every parameter that one loss reaches."""
    one.zero_grad()
    losses(one).named()[name].backward()
    return {key: p.grad.clone() for key, p in one.named_parameters() if p.grad is not None}


CODES = "student.memory.codes"


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("crossing", list(CROSSINGS))
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_strength_scales_the_gradient_of_its_crossing_and_no_other(
    crossing: str, strength: float, n_classes: int
) -> None:
    free = model(n_classes, **(PUBLISHED | {crossing: 0.0}))
    damped = model(n_classes, **(PUBLISHED | {crossing: strength}))
    for name, loss in CROSSINGS.items():
        full, left = gradients(free, loss), gradients(damped, loss)
        if name == crossing:
            assert float(full[CODES].abs().max()) > 1e-4
            torch.testing.assert_close(
                left.pop(CODES, torch.zeros_like(full[CODES])), (1.0 - strength) * full.pop(CODES), rtol=1e-4, atol=1e-7
            )
        elif (name, crossing) == ("slide", "classifier"):
            # The slide alignment passes the attention too, whose gradient to the codes is this crossing's.
            assert not torch.equal(left.pop(CODES), full.pop(CODES))
        # Everything else learns as before, bit by bit.
        assert left.keys() == full.keys()
        assert all(torch.equal(left[key], full[key]) for key in full)


@pytest.mark.parametrize("crossing", list(CROSSINGS))
def test_strengths_change_no_loss(crossing: str) -> None:
    expected = losses(model()).values()
    for strength in (0.0, 0.5, 1.0):
        assert losses(model(**{crossing: strength})).values() == expected


def test_the_defaults_are_the_published_table() -> None:
    by_default, published = model(), model(**PUBLISHED)
    for loss in CROSSINGS.values():
        left, right = gradients(by_default, loss), gradients(published, loss)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)
    assert CODES not in gradients(by_default, "task")
    for loss in ("rna", "slide"):
        moved = gradients(by_default, loss)[CODES].abs().sum((1, 2))
        assert bool((moved > 0).all())


def test_the_classifier_crossing_open_moves_codes_of_both_classes() -> None:
    moved = gradients(model(classifier=0.0), "task")[CODES].abs().sum((1, 2))
    assert bool((moved > 0).all())


@pytest.mark.parametrize(
    ("loss", "decoupling", "shares"),
    [
        ({}, {}, (1.0, 1.0)),
        ({}, {"rna": 0.25, "slide": 1.0}, (0.75, 0.0)),
        ({"rna": 0.0}, {}, (0.0, 1.0)),
        ({"slide": 0.0}, {"rna": 0.5}, (0.5, 0.0)),
    ],
)
def test_a_rule_that_follows_projections_follows_those_taught_and_let_through(
    loss: dict[str, float], decoupling: dict[str, float], shares: tuple[float, float]
) -> None:
    memory = {"codes": 3, "dim": 6, "update": "ema", "decoupling": decoupling}
    settings = ModelSettings.model_validate({"memory": memory, "loss": loss, "encoder": {"dim": 8}})
    updates = MoMKD(5, Nominal(2), settings, {"rna": 7}).updates
    assert updates is not None
    assert (updates.rna, updates.slide) == shares
