"""The programme memory: its equations by hand, and who is moved by what."""

from __future__ import annotations

import torch

from momkd.experiment import ModelSettings, ProgrammeSettings
from momkd.models.outcome import Nominal
from momkd.models.programmes import Programmes
from momkd.models.student import Student

CODES = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.6, 0.8]]])


def memory() -> Programmes:
    torch.manual_seed(0)
    made = Programmes(3, 4, n_memories=2, n_scores=1, settings=ProgrammeSettings(dim=2, codes=2))
    made.codes.copy_(CODES)
    return made


def test_nothing_is_claimed_before_anything_is_learnt() -> None:
    made = memory()
    programmes = made.predict(torch.randn(5, 3), torch.randn(5, 4))
    assert not programmes.any()
    assert not made.vote(torch.randn(5, 2)).any()


def test_affinities_and_loss_by_hand() -> None:
    made = memory()
    z = torch.tensor([[2.0, 1.0]])
    torch.testing.assert_close(made.affinities(z), torch.tensor([[2.0, 1.0, -2.0, 2.0]]))
    profile = torch.tensor([[0.0, 1.0]])
    # q(z) − q(ρ) = (2, 0, −2, 1.2); n/CK = 2/4.
    torch.testing.assert_close(made.loss(z, profile), torch.tensor([0.5 * (4.0 + 0.0 + 4.0 + 1.44)]))
    assert float(made.loss(profile, profile)) == 0.0


def test_the_vote_sends_no_gradient_into_the_programmes() -> None:
    settings = ModelSettings.model_validate({"encoder": {"dim": 4}, "programmes": {"dim": 2, "codes": 2}})
    student = Student(3, Nominal(2), settings, ("rna",)).eval()
    made = student.programme_memories()["rna"]
    with torch.no_grad():
        for layer in (made.from_mean, made.from_pooled, made.readout):
            layer.weight.normal_()
    mean, pooled = torch.randn(5, 3), torch.randn(5, 4)
    score = student.score(mean, pooled)
    score.votes["rna"].sum().backward()
    assert made.readout.weight.grad is not None
    assert made.from_mean.weight.grad is None
    asked = student.score(mean, pooled, through_votes=True)
    torch.testing.assert_close(asked.scores, score.scores, rtol=0, atol=0)
    asked.votes["rna"].sum().backward()
    assert made.from_mean.weight.grad is not None
    made.zero_grad()
    made.loss(score.programmes["rna"], torch.randn(5, 2)).sum().backward()
    assert made.from_mean.weight.grad is not None
    assert made.readout.weight.grad is None
    assert "codes" not in dict(made.named_parameters())


def test_prototypes_are_the_kinds_of_each_class() -> None:
    made = memory()
    angles = torch.tensor([0.0, 0.02, 1.5, 1.52, 3.1, 3.12, 4.6, 4.62, 0.7])
    profiles = torch.stack([angles.cos(), angles.sin()], 1)
    label = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, -1])
    made.fill(profiles, label, torch.Generator().manual_seed(0))
    found = torch.atan2(made.codes[..., 1], made.codes[..., 0]) % (2 * torch.pi)
    torch.testing.assert_close(found.sort(1).values, torch.tensor([[0.01, 1.51], [3.11, 4.61]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(made.codes.norm(dim=-1), torch.ones(2, 2))
