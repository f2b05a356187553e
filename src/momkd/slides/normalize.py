"""Normalisers of patch features, fitted on the training patients of a fold: scikit-learn's style, bags as input.

Parameters are stored unchanged in ``__init__``, ``fit`` returns self, what was learnt ends in ``_``. The order in
which bags are given changes no byte of the result, and memory does not grow with the number of patches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Literal, Protocol, Self

import numpy as np
from scipy.special import ndtri

Kind = Literal["none", "standard", "quantile"]
_BLOCK = 512  # rows that are converted at a time, so that wide copies stay in the cache
# Up to so many rows, all columns of a row at once are faster than all rows of a column (a call a column costs 10 µs).
_FEW_ROWS = 64


class Normalizer(Protocol):
    """What every normaliser does; ``features`` are (P, D) arrays of float16 or float32."""

    def fit(self, bags: Iterable[np.ndarray]) -> Self:
        """Learn from training bags of equal D."""

    def transform(self, features: np.ndarray) -> np.ndarray:
        """Return (P, D) float32."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what was learnt, to be saved."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Make a fitted normaliser from ``arrays()``."""


class NoNormalizer:
    """Leave features as they are, in float32."""

    def fit(self, bags: Iterable[np.ndarray]) -> Self:  # noqa: ARG002
        """Learn nothing; the bags are not read."""
        return self

    def transform(self, features: np.ndarray) -> np.ndarray:
        """Return the features as float32."""
        if features.dtype != np.float16 or not features.flags.writeable:
            return np.asarray(features, dtype=np.float32)
        # The same numbers several times faster: NumPy widens one float16 after the other. Torch takes no array that
        # must not be written to.
        import torch

        widened: np.ndarray = torch.from_numpy(np.ascontiguousarray(features)).float().numpy()
        return widened

    def arrays(self) -> dict[str, np.ndarray]:
        """Return no array."""
        return {}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:  # noqa: ARG003
        """Make one; there is nothing to restore."""
        return cls()


class StandardNormalizer:
    """z = (x − mean) / standard deviation, every patch counting once; columns that never vary give 0.

    ``mean_`` (D,) and ``scale_`` (D,) float64; the deviation is that of the population (as scikit-learn's
    StandardScaler), infinite for columns that never vary. Each bag gives its sum and its squared deviations in
    float64; these are added over bags with one rounding at the end (math.fsum), so their order does not matter.
    Memory while fitting: 16·D bytes a bag.
    """

    mean_: np.ndarray
    scale_: np.ndarray

    def fit(self, bags: Iterable[np.ndarray]) -> Self:
        """Learn mean and deviation of every column from bags (P, D); raises ValueError without patches."""
        counts: list[int] = []
        means: list[np.ndarray] = []
        squares: list[np.ndarray] = []
        low: np.ndarray | float = math.inf
        high: np.ndarray | float = -math.inf
        for bag in _same_width(bags):
            mean, square = _moments(bag)
            counts.append(len(bag))
            means.append(mean)
            squares.append(square)
            low, high = np.minimum(low, bag.min(axis=0)), np.maximum(high, bag.max(axis=0))
        if not counts:
            raise ValueError("a normaliser was fitted on no patches")
        total, weight = sum(counts), np.array(counts, dtype=np.float64)[:, None]
        by_bag = np.stack(means)
        mean = _exact_sum(by_bag * weight) / total
        variance = _exact_sum(np.stack(squares) + weight * (by_bag - mean) ** 2) / total
        constant = np.equal(low, high)
        self.mean_ = np.where(constant, low, mean)
        self.scale_ = np.where(constant | (variance == 0), np.inf, np.sqrt(variance))
        return self

    def transform(self, features: np.ndarray) -> np.ndarray:
        """Return (P, D) float32, computed in float64; raises ValueError for another width than was fitted."""
        _check_width(features, len(self.mean_))
        result = np.empty(features.shape, dtype=np.float32)
        for start in range(0, len(features), _BLOCK):
            rows = slice(start, start + _BLOCK)
            result[rows] = (features[rows] - self.mean_) / self.scale_
        return result

    def arrays(self) -> dict[str, np.ndarray]:
        """Return mean and scale, float64."""
        return {"mean": self.mean_, "scale": self.scale_}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Make one from ``arrays()``; raises ValueError where arrays are missing or of the wrong shape."""
        mean, scale = _take(arrays, "mean", 1), _take(arrays, "scale", 1)
        if mean.shape != scale.shape or not (scale > 0).all():
            raise ValueError(f"mean {mean.shape} and scale {scale.shape} are not those of a standard normaliser")
        made = cls()
        made.mean_, made.scale_ = mean.astype(np.float64), scale.astype(np.float64)
        return made


class QuantileNormalizer:
    """Map every column to a standard normal by its rank among training patches; robust to heavy tails.

    As scikit-learn's QuantileTransformer(output_distribution="normal"): ranks are interpolated linearly between
    ``quantiles_`` (n, D) float64, from both sides where quantiles repeat, and put through the inverse normal; the
    smallest training value and below give −5.199, the largest and above +5.199. Three differences: columns that never
    vary give 0 (there: −5.199); the ends are compared exactly (there: within 1e-7, which swallows features of small
    scale); the training patches are sub-sampled deterministically.

    Sub-sampling: a bag of more than ``rows_per_bag`` patches gives that many, evenly spaced; of all these, the
    ``max_rows`` with the smallest hash (of contents, row and bag) are kept: a uniform sample, whatever the order of
    bags. Memory while fitting: at most (2·max_rows + rows_per_bag)·D·4 bytes and one bag.
    """

    quantiles_: np.ndarray

    def __init__(self, n_quantiles: int = 256, max_rows: int = 20_000, rows_per_bag: int = 2_000) -> None:
        self.n_quantiles = n_quantiles
        self.max_rows = max_rows
        self.rows_per_bag = rows_per_bag

    def fit(self, bags: Iterable[np.ndarray]) -> Self:
        """Learn every column's quantiles from bags (P, D); raises ValueError without patches or for bad settings."""
        if self.n_quantiles < 2 or self.max_rows < 2 or self.rows_per_bag < 1:
            raise ValueError(
                f"n_quantiles {self.n_quantiles}, max_rows {self.max_rows}, rows_per_bag {self.rows_per_bag}; "
                "expected at least 2, 2 and 1"
            )
        sample = self._sample(bags)
        n = max(2, min(self.n_quantiles, len(sample)))
        place = np.linspace(0, 1, n) * (len(sample) - 1)
        low = np.floor(place).astype(np.int64)
        share = (place - low)[:, None]
        high = np.minimum(low + 1, len(sample) - 1)
        self.quantiles_ = np.empty((n, sample.shape[1]), dtype=np.float64)
        for start in range(0, sample.shape[1], 64):
            columns = slice(start, start + 64)
            ordered = np.sort(sample[:, columns], axis=0).astype(np.float64)
            between = ordered[low] * (1 - share) + ordered[high] * share
            # Rounding may put an interpolated value a hair below its predecessor.
            self.quantiles_[:, columns] = np.maximum.accumulate(between, axis=0)
        self.__dict__.pop("_columns", None)
        return self

    def _sample(self, bags: Iterable[np.ndarray]) -> np.ndarray:
        kept: list[np.ndarray] = []
        keys: list[np.ndarray] = []
        held = 0
        for bag in _same_width(bags):
            take = min(len(bag), self.rows_per_bag)
            rows = np.ascontiguousarray(bag[np.arange(take) * len(bag) // take], dtype=np.float32)
            kept.append(rows)
            keys.append(_hash_rows(rows))
            held += take
            if held > 2 * self.max_rows:
                rows, key = self._smallest(kept, keys)
                kept, keys, held = [rows], [key], len(rows)
        if not kept:
            raise ValueError("a normaliser was fitted on no patches")
        return self._smallest(kept, keys)[0]

    def _smallest(self, kept: list[np.ndarray], keys: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        rows, key = np.concatenate(kept), np.concatenate(keys)
        if len(rows) <= self.max_rows:
            return rows, key
        chosen = np.argsort(key, kind="stable")[: self.max_rows]
        return rows[chosen], key[chosen]

    def transform(self, features: np.ndarray) -> np.ndarray:
        """Return (P, D) float32 within ±5.2; raises ValueError for another width than was fitted."""
        n, width = self.quantiles_.shape
        _check_width(features, width)
        ranks = np.linspace(0, 1, n)
        knots, repeats = self._columns
        result = np.empty(features.shape, dtype=np.float32)
        if len(features) <= _FEW_ROWS:
            result[:] = _rows_to_normal(features.astype(np.float64), knots, ranks, repeats)
            return result
        for start in range(0, width, 64):
            columns = np.ascontiguousarray(features[:, start : start + 64].T, dtype=np.float64)
            for column, values in enumerate(columns, start):
                _to_normal(values, knots[column], ranks, has_repeats=bool(repeats[column]))
            result[:, start : start + 64] = columns.T
        return result

    @cached_property
    def _columns(self) -> tuple[np.ndarray, np.ndarray]:
        """The quantiles by column (D, n), and which columns (D,) have equal ones."""
        knots = np.ascontiguousarray(self.quantiles_.T)
        return knots, (np.diff(knots, axis=1) == 0).any(axis=1)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the quantiles, float64."""
        return {"quantiles": self.quantiles_}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Make one from ``arrays()``; raises ValueError where the quantiles are missing or not ascending."""
        quantiles = _take(arrays, "quantiles", 2)
        if len(quantiles) < 2 or (np.diff(quantiles, axis=0) < 0).any():
            raise ValueError(f"quantiles {quantiles.shape} are not those of a quantile normaliser")
        made = cls(n_quantiles=len(quantiles))
        made.quantiles_ = np.ascontiguousarray(quantiles, dtype=np.float64)
        return made


_NORMALIZERS: Mapping[str, Callable[[], Normalizer]] = {
    "none": NoNormalizer,
    "standard": StandardNormalizer,
    "quantile": QuantileNormalizer,
}


def make_normalizer(kind: Kind) -> Normalizer:
    """Return an unfitted normaliser; raises ValueError for an unknown kind."""
    if kind not in _NORMALIZERS:
        raise ValueError(f"features.normalize is {kind!r}; expected one of {', '.join(_NORMALIZERS)}")
    return _NORMALIZERS[kind]()


def load_normalizer(kind: Kind, arrays: Mapping[str, np.ndarray]) -> Normalizer:
    """Return a fitted normaliser from what ``arrays()`` gave; raises ValueError where they do not fit the kind."""
    return make_normalizer(kind).from_arrays(arrays)


# The probability that scikit-learn's transformer clips to, and the value there (5.199…).
_EDGE = float(-ndtri(1e-7 - np.spacing(1.0)))


def _to_normal(values: np.ndarray, knots: np.ndarray, ranks: np.ndarray, *, has_repeats: bool) -> None:
    """Replace one column's values (P,) by their normal scores."""
    first, last = knots[0], knots[-1]
    if first == last:
        values.fill(0.0)
        return
    # Interpolation in ascending values walks through the knots instead of searching them: more than twice as fast.
    order = np.argsort(values)
    ordered = values[order]
    rank = np.interp(ordered, knots, ranks)
    if has_repeats:
        rank = 0.5 * (rank - np.interp(-ordered[::-1], -knots[::-1], -ranks[::-1])[::-1])
    score = np.clip(ndtri(rank), -_EDGE, _EDGE)
    score[ordered <= first] = -_EDGE
    score[ordered >= last] = _EDGE
    values[order] = score


def _rows_to_normal(values: np.ndarray, knots: np.ndarray, ranks: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    """Return the normal scores of a few rows (P, D): what ``_to_normal`` gives, computed across the columns.

    ``knots`` (D, n), ``repeats`` (D,): the columns with equal knots. Between knots the arithmetic is
    that of np.interp, so that a patch scores the same in a bag of any size.
    """
    n = knots.shape[1]
    first, last = knots[:, 0], knots[:, -1]
    inside = (values > first) & (values < last)
    low = np.where(inside, _last_knot(values, knots, np.less_equal), 0)
    rank = _between(values, knots, ranks, low, np.minimum(low + 1, n - 1))
    if repeats.any():
        high = np.where(inside, _last_knot(values, knots, np.less) + 1, n - 1)
        backward = _between(values, knots, ranks, high, np.maximum(high - 1, 0))
        rank = np.where(repeats, 0.5 * (rank + backward), rank)
    score: np.ndarray = np.clip(ndtri(rank), -_EDGE, _EDGE)
    score[values <= first] = -_EDGE
    score[values >= last] = _EDGE
    score[:, first == last] = 0.0
    return score


def _last_knot(values: np.ndarray, knots: np.ndarray, below: np.ufunc) -> np.ndarray:
    """Return for each value (P, D) the last of its column's knots that is ``below`` it, else 0, by bisection."""
    n = knots.shape[1]
    column = np.arange(len(knots)) * n
    place = np.zeros(values.shape, dtype=np.int64)
    step = 1 << (n - 1).bit_length() >> 1
    while step:
        probe = np.minimum(place + step, n - 1)
        place = np.where(below(knots.take(column + probe), values), probe, place)
        step >>= 1
    return place


def _between(
    values: np.ndarray, knots: np.ndarray, ranks: np.ndarray, here: np.ndarray, there: np.ndarray
) -> np.ndarray:
    """Interpolate ranks (P, D) from the knot ``here`` towards ``there``, both indices (P, D) into a column's knots."""
    column = np.arange(len(knots)) * knots.shape[1]
    at = knots.take(column + here)
    width = knots.take(column + there) - at
    slope = np.divide(ranks[there] - ranks[here], width, out=np.zeros_like(width), where=width != 0)
    return np.asarray(slope * (values - at) + ranks[here])


def _moments(bag: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return one bag's mean (D,) and its summed squared deviations from it (D,), float64."""
    mean = bag.sum(axis=0, dtype=np.float64) / len(bag)
    square = np.zeros(bag.shape[1])
    for start in range(0, len(bag), _BLOCK):
        deviation = bag[start : start + _BLOCK] - mean
        square += np.einsum("pd,pd->d", deviation, deviation)
    return mean, square


def _exact_sum(by_bag: np.ndarray) -> np.ndarray:
    """Sum (bags, D) over bags with one rounding, so that the order of bags does not matter."""
    return np.array([math.fsum(column) for column in by_bag.T], dtype=np.float64)


def _hash_rows(rows: np.ndarray) -> np.ndarray:
    """Return a 64-bit hash of every row (P,), of its contents, its place in the bag and the bag's contents."""
    words = rows.view(np.uint32).astype(np.uint64)
    columns = _mix(np.arange(1, rows.shape[1] + 1, dtype=np.uint64)) | np.uint64(1)
    content = _mix((words * columns).sum(axis=1, dtype=np.uint64))
    bag = _mix(content.sum(dtype=np.uint64, keepdims=True))
    return _mix(content + _mix(np.arange(len(rows), dtype=np.uint64)) + bag)


def _mix(value: np.ndarray) -> np.ndarray:
    """Scatter 64-bit integers: the finaliser of splitmix64 (Steele et al. 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = value ^ (value >> np.uint64(31))
    return mixed


def _same_width(bags: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the bags, checking that they agree in D."""
    width: int | None = None
    for bag in bags:
        if bag.ndim != 2 or len(bag) == 0:
            raise ValueError(f"a bag has shape {bag.shape}; expected (patches, features) with at least one patch")
        width = bag.shape[1] if width is None else width
        _check_width(bag, width)
        yield bag


def _check_width(features: np.ndarray, width: int) -> None:
    if features.ndim != 2 or features.shape[1] != width:
        raise ValueError(f"features have shape {features.shape}; the normaliser expects (patches, {width})")


def _take(arrays: Mapping[str, np.ndarray], name: str, axes: int) -> np.ndarray:
    if name not in arrays or arrays[name].ndim != axes:
        found = ", ".join(f"{key} {values.shape}" for key, values in arrays.items()) or "nothing"
        raise ValueError(f"normaliser arrays hold {found}; expected {name} with {axes} axes")
    return arrays[name]
