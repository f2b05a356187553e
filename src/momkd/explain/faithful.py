"""Whether a map is true of the model: what happens to its score when the patches it names are taken away.

Deletion: patches leave the bag, those that a map ranks highest first, and after each share the student scores what
remains; the faster the score falls, the more the map knew. Insertion: they come into an empty bag in the same order.
(Petsiuk et al. 2018, with patches for pixels.) A curve is summed up by its mean; the orders are compared on the same
slides. Where it is known which patches are informative, as in a simulated cohort, localisation is the AUC of a map for
that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.integrate import trapezoid
from scipy.stats import ttest_rel

from momkd.slides.bag import Bag
from momkd.slides.graph import induced_edges
from momkd.training.judge import auc

FloatArray = npt.NDArray[np.floating]
# A bag → the report that is explained.
Score = Callable[[Bag], float]
# Shares of the patches that are gone, or there.
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True, eq=False)
class Curves:
    """Scores (shares,) of one slide after each of ``SHARES``: patches deleted, and patches kept."""

    deletion: FloatArray
    insertion: FloatArray

    @property
    def means(self) -> tuple[float, float]:
        """Area under deletion (lower is better) and insertion (higher is better), over the range of shares."""
        return area(self.deletion), area(self.insertion)


def area(curve: FloatArray) -> float:
    """The mean of a curve (shares,) over the range of ``SHARES``."""
    return float(trapezoid(curve, SHARES) / (SHARES[-1] - SHARES[0]))


def curves(bag: Bag, order: Sequence[int] | npt.NDArray[np.int64], score: Score) -> Curves:
    """Both curves of an order of all patches, the first to be deleted first. A bag keeps at least one patch."""
    ranked = np.asarray(order, dtype=np.int64)
    deletion, insertion = [], []
    for share in SHARES:
        gone = min(round(share * len(ranked)), len(ranked) - 1)
        deletion.append(score(some_of(bag, ranked[gone:])))
        come = max(round(share * len(ranked)), 1)
        insertion.append(score(some_of(bag, ranked[:come])))
    return Curves(np.array(deletion), np.array(insertion))


def some_of(bag: Bag, patches: npt.NDArray[np.int64]) -> Bag:
    """A bag of some patches, in the order of the file, with the graph of their positions or the rest of the file's."""
    rows = np.sort(patches)
    coords = None if bag.coords is None else bag.coords[rows]
    edges = {k: induced_edges(pairs, rows, bag.n_patches) for k, pairs in bag.edges.items()}
    return replace(bag, features=bag.features[rows], coords=coords, edges=edges)


def highest_first(values: FloatArray) -> npt.NDArray[np.int64]:
    """Patch numbers by falling value; ties in the order of the file."""
    return np.argsort(-values, kind="stable")


def paired_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p of Student's paired t-test over slides; 1 where all differences are equal to zero."""
    difference = np.asarray(first) - np.asarray(second)
    return 1.0 if not difference.any() else float(ttest_rel(first, second).pvalue)


def localisation_auc(values: FloatArray, informative: npt.NDArray[np.bool_]) -> float:
    """AUC of a map (P,) for the patches that are informative (P,); NaN where all are or none is."""
    return float("nan") if informative.all() or not informative.any() else auc(informative, values)
