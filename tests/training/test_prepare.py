"""Bags as the network sees them: whole ones from files and stores alike, parts with the right graph."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from momkd.cohort.dataset import CohortData, load_data
from momkd.experiment import load_experiment
from momkd.models.graph import Graph
from momkd.slides.graph import induced_edges, knn_edges
from momkd.training.prepare import Roles, fit_normalizer, prepare_bags, prepare_fit
from momkd.training.samples import FitData

CohortMaker = Callable[..., Path]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, make_cohort: CohortMaker) -> Path:
    return make_cohort(tmp_path_factory.mktemp("prepare"))


def prepared(file: Path, *overrides: str) -> tuple[CohortData, FitData]:
    experiment = load_experiment(file, ["omics=null", *overrides])
    data = load_data(experiment)
    patients = list(data.cohort.patients.index)
    roles = Roles(tuple(patients[:24]), tuple(patients[24:]))
    bags = prepare_bags(data, fit_normalizer(data, roles.train, experiment), experiment)
    return data, prepare_fit(data, roles, experiment, bags, 0)[0]


@pytest.mark.parametrize("normalize", ["none", "quantile"])
def test_a_float32_store_changes_no_bag(file: Path, tmp_path: Path, normalize: str) -> None:
    option = f"features.normalize={normalize}"
    _, plain = prepared(file, option)
    data, stored = prepared(file, option, f"features.store={tmp_path / 'store'}", "features.store_dtype=float32")
    assert data.store is not None
    assert [s.slide_id for s in plain.train] == [s.slide_id for s in stored.train]
    rows = torch.tensor([0, 2, 3, 7])
    for sample in [*plain.train, *plain.val]:
        a, b = ((f.bags[sample.slide_id], f.bags.part(sample.slide_id, rows)) for f in (plain, stored))
        for direct, packed in zip(a, b, strict=True):
            assert torch.equal(direct.features, packed.features)
            assert torch.equal(direct.graph.senders, packed.graph.senders)
            assert torch.equal(direct.graph.receive_ptr, packed.graph.receive_ptr)


def test_a_part_has_the_graph_of_its_positions(file: Path) -> None:
    data, fold = prepared(file)
    slide = fold.train[0].slide_id
    rows = torch.tensor([0, 1, 3, 5, 6, 8])
    bag, part = data.bag(slide), fold.bags.part(slide, rows)
    np.testing.assert_array_equal(part.features, bag.features[rows.numpy()])
    assert bag.coords is not None
    expected = Graph.from_edges(torch.from_numpy(knn_edges(bag.coords[rows.numpy()], 4)), len(rows))
    assert torch.equal(part.graph.senders, expected.senders)
    assert torch.equal(part.graph.receive_ptr, expected.receive_ptr)
    _, alone = prepared(file, "graph.k=0")
    assert alone.bags.part(slide, rows).graph.n_edges == len(rows)  # self-loops only


def test_a_part_of_a_graph_of_its_own_is_the_edges_inside() -> None:
    edges = np.array([[0, 1, 2, 4, 3, 1], [1, 2, 4, 0, 1, 0]])
    np.testing.assert_array_equal(induced_edges(edges, np.array([0, 1, 4]), 5), [[0, 2, 1], [1, 0, 0]])
    assert induced_edges(edges, np.array([3]), 5).shape == (2, 0)


def test_cohort_data_crosses_processes_with_its_store_and_without_its_bags(file: Path, tmp_path: Path) -> None:
    data, _ = prepared(file, f"features.store={tmp_path / 'store'}")
    plain, _ = prepared(file)
    for original in (data, plain):
        slide = original.cohort.slides["slide_id"][0]
        bag = original.bag(slide)
        sent = pickle.dumps(original)
        assert len(sent) < 40_000
        copy: CohortData = pickle.loads(sent)  # noqa: S301 - our own bytes
        np.testing.assert_array_equal(copy.bag(slide).features, bag.features)
        assert copy.labels == original.labels
        assert torch.equal(copy.tensor(slide), original.tensor(slide))
