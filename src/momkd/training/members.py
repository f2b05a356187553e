"""Cross-fitted members: networks that vote as one student, each of which left out other patients.

The training and validation patients of a fold are divided into M parts of whole groups; member m is trained on all but
part m. Together they learn from every patient, and each patient has a prediction of the one member that did not see
it, by which the threshold is chosen. Everything fitted (genes, scalers, teachers, prototypes) is fitted by each member
on its own training patients; only the feature normaliser, which sees no label, is shared.
"""

from __future__ import annotations

from momkd.cohort.dataset import CohortData
from momkd.cohort.parts import balanced_parts
from momkd.training.prepare import Roles


def member_roles(cohort: CohortData, roles: Roles, members: int, seed: int) -> list[Roles]:
    """The training and validation patients of each member; with one member those of the fold.

    There are fewer than ``members`` where the groups allow fewer parts with every class in each. Raises SplitError.
    """
    if members == 1:
        return [Roles(roles.train, roles.val)]
    patients = sorted(roles.train + roles.val)
    part = balanced_parts(cohort.cohort.among(patients), members, seed)
    return [
        Roles(
            train=tuple(p for p, own in zip(patients, part, strict=True) if own != member),
            val=tuple(p for p, own in zip(patients, part, strict=True) if own == member),
        )
        for member in range(int(part.max()) + 1)
    ]
