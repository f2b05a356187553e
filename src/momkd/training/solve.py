"""A fit in closed form: gathers what a linear method may know, and lets it solve itself."""

from __future__ import annotations

import torch

from momkd.models.closed_form import ClosedForm, Known
from momkd.models.method import Method
from momkd.training.samples import FitData, targets_of


@torch.no_grad()
def solve(method: Method, data: FitData) -> None:
    """Solve a closed-form method on the training slides; it is left in eval mode."""
    if not isinstance(method, ClosedForm):
        raise TypeError(f"{type(method).__name__} is trained, not solved")
    means = [data.bags[sample.slide_id].features.double().mean(0) for sample in data.train]
    part = torch.tensor([data.inner_part[sample.patient_id] for sample in data.train])
    soft, has_soft = (None, None) if data.soft is None else data.soft.take(data.train)
    omics = data.rows_of(data.train).double() if data.tables else None
    known = Known(
        torch.stack(means),
        targets_of(data.train, data.task).double(),
        part,
        omics,
        None if soft is None else soft.double(),
        has_soft,
    )
    method.solve(known)
    method.eval()
