"""Slide-only methods against well-kept packages, and by hand on small cases."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from momkd.experiment import ModelSettings
from momkd.models.baselines.abmil import ABMIL
from momkd.models.baselines.clam import Clam, ClamMB, ClamSB, pseudo_labels
from momkd.models.baselines.dsmil import DSMIL, DSMILModel
from momkd.models.baselines.dtfd import DTFD, DTFDModel, pseudo_bags
from momkd.models.baselines.linear import Linear, LinearFit
from momkd.models.baselines.max_pool import MaxPool
from momkd.models.baselines.mean_pool import MeanPool
from momkd.models.baselines.patch_gcn import GENConv, neighbours
from momkd.models.baselines.solvers import Axes, LeftOut, calibrated, logistic_path, macro_auc, ridge_path
from momkd.models.baselines.transmil import NystromAttention, TransMIL, nystrom, pseudo_inverse
from momkd.models.baselines.wikg import WiKG, nearest
from momkd.models.closed_form import Known
from momkd.models.graph import Graph
from momkd.models.lesson import Lesson
from momkd.models.outcome import Nominal
from momkd.models.packed import PackedBags

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torchmil.models as torchmil
    from torch_geometric.nn import GENConv as OracleGENConv

D, W = 6, 10


def settings(**own: float) -> ModelSettings:
    return ModelSettings.model_validate({"baseline": {"dim": W, "attention": 4, "dropout": 0.0, **own}})


def bags_of(*sizes: int, seed: int = 0) -> tuple[PackedBags, list[Tensor]]:
    stream = torch.Generator().manual_seed(seed)
    features = [torch.randn(n, D, generator=stream) for n in sizes]
    return PackedBags.pack(features, [torch.empty(2, 0, dtype=torch.int64)] * len(sizes)), features


def copy(target: nn.Linear, source: nn.Linear) -> None:
    with torch.no_grad():
        target.weight.copy_(source.weight)
        if target.bias is not None:
            target.bias.copy_(source.bias)


def test_pooling_by_hand() -> None:
    torch.manual_seed(0)
    bags, features = bags_of(1, 4)
    for kind, pool in ((MeanPool, lambda h: h.mean(0)), (MaxPool, lambda h: h.amax(0))):
        model = kind(D, Nominal(2), settings())
        layer, head = model.embedding.linear, model.head
        logits = torch.stack([head(pool((x @ layer.weight.T + layer.bias).relu())) for x in features])
        torch.testing.assert_close(model(bags).scores, logits[:, 1:] - logits[:, :1])


def test_abmil_is_that_of_torchmil() -> None:
    torch.manual_seed(0)
    model, (bags, features) = ABMIL(D, Nominal(2), settings()), bags_of(1, 3, 30)
    embed = nn.Sequential(nn.Linear(D, W), nn.ReLU())
    oracle = torchmil.ABMIL(in_shape=(D,), att_dim=4, gated=True, feat_ext=embed)
    copy(embed[0], model.embedding.linear)
    copy(oracle.pool.fc1.module, model.attention.tanh)
    copy(oracle.pool.fc_gated.module, model.attention.gate)
    copy(oracle.pool.fc2, model.attention.weight)
    with torch.no_grad():  # two logits of ours are one of theirs
        oracle.classifier.module.weight.copy_(model.head.weight[1:] - model.head.weight[:1])
        oracle.classifier.module.bias.copy_(model.head.bias[1:] - model.head.bias[:1])
    out = model(bags)
    for number, x in enumerate(features):
        logit, attention = oracle(x.unsqueeze(0), return_att=True)
        torch.testing.assert_close(out.scores[number], logit, rtol=1e-6, atol=1e-6)
        own = torch.split(out.attention, bags.ptr.diff().tolist())[number]
        torch.testing.assert_close(own, torch.softmax(attention[0], 0), rtol=1e-6, atol=1e-6)


def test_dsmil_is_that_of_torchmil() -> None:
    torch.manual_seed(0)
    model, (bags, features) = DSMILModel(D, Nominal(2), settings()), bags_of(1, 3, 30)
    embed = nn.Sequential(nn.Linear(D, W), nn.ReLU())
    oracle = torchmil.DSMIL(in_shape=(D,), att_dim=128, feat_ext=embed)
    copy(embed[0], model.embedding.linear)
    copy(oracle.q_nn, model.query)
    copy(oracle.inst_classifier, model.instance)
    copy(oracle.bag_classifier, model.head)
    labels = torch.tensor([1.0, 0.0, 1.0])
    losses = []
    for number, x in enumerate(features):
        both, found = oracle.compute_loss(labels[number : number + 1], x.unsqueeze(0))
        torch.testing.assert_close(model(bags).scores[number], both, rtol=1e-6, atol=1e-6)
        losses.append(0.5 * sum(found.values()))
    method = DSMIL(model, settings(), {})
    torch.testing.assert_close(method(bags, Lesson.of_classes(labels.long())).total, torch.stack(losses).mean())


def test_genconv_is_that_of_torch_geometric() -> None:
    torch.manual_seed(0)
    ours = GENConv(8)
    oracle = OracleGENConv(8, 8, aggr="softmax", t=1.0, learn_t=True, num_layers=2, norm="layer", bias=True)
    edges = torch.randint(0, 15, (2, 40), generator=torch.Generator().manual_seed(1))
    edges = torch.unique(edges[:, edges[0] != edges[1]], dim=1)
    with torch.no_grad():
        ours.temperature.fill_(0.7)
        oracle.aggr_module.t.fill_(0.7)
    linear = [layer for layer in oracle.mlp if hasattr(layer, "weight") and layer.weight.dim() == 2]
    copy(linear[0], ours.mlp[0])
    copy(linear[1], ours.mlp[3])
    x = torch.randn(15, 8)
    source, target = neighbours(Graph.from_edges(edges, 15))
    torch.testing.assert_close(ours(x, source, target), oracle(x, edges), rtol=1e-5, atol=1e-6)
    lonely = ours(x, torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    torch.testing.assert_close(lonely, ours.mlp(x))


def test_clam_pseudo_labels_by_hand() -> None:
    bags, _ = bags_of(1, 3, 20)
    attention = torch.cat([torch.ones(1), torch.tensor([0.2, 0.5, 0.3]), torch.arange(20.0)])
    marks = pseudo_labels(attention, bags)
    assert marks[:1].tolist() == [-1]  # one patch is neither high nor low
    assert marks[1:4].tolist() == [0, 1, -1]
    assert marks[4:].tolist() == [0] * 8 + [-1] * 4 + [1] * 8


@pytest.mark.parametrize("kind", [ClamSB, ClamMB])
def test_clam_loss_by_hand(kind: type[ClamSB]) -> None:
    torch.manual_seed(0)
    student = kind(D, Nominal(2), settings())
    method, (bags, features) = Clam(student, settings(), {}), bags_of(4, 1)
    losses = method(bags, Lesson.of_classes(torch.tensor([1, 0])))
    h = student.embedding(features[0])
    row = 1 if kind is ClamMB else 0
    a = torch.softmax(student.attention(h)[:, row], 0)
    order = a.argsort(descending=True)
    logits = method.instance(h)[:, 2:]  # the head of class 1
    wanted = functional.cross_entropy(logits[order], torch.tensor([1, 1, 0, 0]))
    # The bag of one patch has no pseudo-labels and counts as nothing lost.
    torch.testing.assert_close(losses.parts["instances"], wanted / 2)
    torch.testing.assert_close(losses.total, 0.7 * losses.parts["task"] + 0.3 * wanted / 2)


def test_clam_scores_by_hand() -> None:
    torch.manual_seed(0)
    single, several = ClamSB(D, Nominal(3), settings()), ClamMB(D, Nominal(3), settings())
    bags, features = bags_of(1, 7)
    for number, x in enumerate(features):
        h = single.embedding(x)
        z = torch.softmax(single.attention(h)[:, 0], 0) @ h
        logits = single.heads[0](z)
        torch.testing.assert_close(single(bags).scores[number], logits[1:] - logits[0])
        h = several.embedding(x)
        maps = torch.softmax(several.attention(h), 0)
        logits = torch.cat([several.heads[c](maps[:, c] @ h) for c in range(3)])
        torch.testing.assert_close(several(bags).scores[number], logits[1:] - logits[0])


def test_nystrom_attention_is_attention_where_every_token_is_a_landmark() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 5, 3, dtype=torch.float64).unbind(0)
    exact = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
    middle = torch.softmax(q @ k.transpose(-1, -2), -1)
    by_inverse = middle @ torch.linalg.pinv(middle) @ (middle @ v)
    torch.testing.assert_close(by_inverse, exact)
    torch.testing.assert_close(nystrom(q, k, v, 5), exact)
    near = nn.functional.normalize(torch.eye(4, dtype=torch.float64) + 0.1, dim=-1, p=1)
    torch.testing.assert_close(pseudo_inverse(near), torch.linalg.inv(near), rtol=1e-6, atol=1e-8)


def test_nystrom_landmarks_by_hand() -> None:
    tokens = torch.arange(5.0, dtype=torch.float64).reshape(1, 1, 5, 1)
    q, k, v = tokens, 0.1 * tokens, torch.eye(5, dtype=torch.float64)[None, None]
    mean_q = torch.tensor([[1.0], [3.5]], dtype=torch.float64)  # tokens 0 1 2 | 3 4
    left = torch.softmax(q[0, 0] @ (0.1 * mean_q).T, -1)
    middle, right = (torch.softmax(mean_q @ other.T, -1) for other in (0.1 * mean_q, k[0, 0]))
    torch.testing.assert_close(nystrom(q, k, v, 2)[0, 0], left @ pseudo_inverse(middle) @ right)


def test_a_nystrom_layer_works_on_one_token() -> None:
    assert NystromAttention(16)(torch.randn(2, 1, 16)).shape == (2, 1, 16)


@pytest.mark.parametrize("n_patches", [1, 3, 9, 40])
def test_convolutions_are_those_of_torch_though_taps_on_zeros_are_left_out(n_patches: int) -> None:
    torch.manual_seed(0)
    model = TransMIL(D, Nominal(2), settings(dim=16)).double().eval()
    attention, squares = NystromAttention(16).double().eval(), math.isqrt(n_patches - 1) + 1
    tokens, square = torch.randn(2, n_patches, 16).double(), torch.randn(2, 16, squares, squares).double()
    expected = sum(convolution(square) for convolution in model.positions)
    torch.testing.assert_close(model._position(square), expected)
    q, k, v = (part.unflatten(-1, (8, 2)).transpose(1, 2) for part in attention.project(tokens).chunk(3, dim=-1))
    mixed = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(2), -1) @ v + attention.stretch(v)
    torch.testing.assert_close(attention(tokens), attention.out(mixed.transpose(1, 2).flatten(2)))


def test_transmil_by_hand() -> None:
    torch.manual_seed(0)
    model = TransMIL(D, Nominal(2), settings(dim=16)).eval()
    bags, features = bags_of(1, 3)
    h = model.embedding(features[1])
    x = torch.cat([model.token[0], h, h[:1]])  # the square of three patches repeats the first
    x = x + model.attentions[0](model.norms[0](x)[None])[0]
    square = x[1:].clone()
    for convolution in model.positions:
        middle = convolution.kernel_size[0] // 2
        for i in range(4):
            for j in range(4):
                down, right = j // 2 - i // 2, j % 2 - i % 2
                square[i] = square[i] + convolution.weight[:, 0, middle + down, middle + right] * x[1 + j]
            square[i] = square[i] + convolution.bias
    x = torch.cat([x[:1], square])
    x = x + model.attentions[1](model.norms[1](x)[None])[0]
    logits = model.head(model.norms[2](x)[0])
    torch.testing.assert_close(model(bags).scores[1, 0], logits[1] - logits[0], rtol=1e-5, atol=1e-6)


def test_dtfd_by_hand() -> None:
    torch.manual_seed(0)
    student, (bags, features) = DTFDModel(D, Nominal(2), settings()), bags_of(6, 1)
    student.eval()
    pseudo, owner = pseudo_bags(bags, at_random=False)
    assert pseudo.tolist() == [0, 1, 2, 3, 0, 1, 4]
    assert owner.tolist() == [0, 0, 0, 0, 1]
    h = student.embedding(features[0])

    def pool(attention: nn.Module, rows: Tensor) -> Tensor:
        return torch.softmax(attention(rows)[:, 0], 0) @ rows

    distilled = torch.stack([pool(student.first, h[[0, 4]]), pool(student.first, h[[1, 5]]), h[2], h[3]])
    logits = student.head(pool(student.second, distilled))
    torch.testing.assert_close(student(bags).scores[0, 0], logits[1] - logits[0])
    lesson = Lesson.of_classes(torch.tensor([1, 0]))
    method = DTFD(student, settings(), {}).eval()
    first = functional.cross_entropy(student.pseudo_head(distilled), torch.ones(4, dtype=torch.int64))
    single = functional.cross_entropy(student.pseudo_head(student.embedding(features[1])), torch.zeros(1).long())
    torch.testing.assert_close(method(bags, lesson).parts["first_tier"], (first + single) / 2)


def test_dtfd_divides_at_random_in_training_only() -> None:
    bags, _ = bags_of(12, 5)
    torch.manual_seed(1)
    pseudo, _ = pseudo_bags(bags, at_random=True)
    assert sorted(torch.bincount(pseudo).tolist()) == [1, 1, 1, 2, 3, 3, 3, 3]
    assert pseudo[12:].min() == 4
    assert not torch.equal(pseudo, pseudo_bags(bags, at_random=False)[0])


@pytest.mark.parametrize("sums", [False, True])
def test_wikg_by_hand(sums: bool) -> None:
    torch.manual_seed(0)
    model = WiKG(D, Nominal(2), settings(wikg_sums=sums))
    bags, features = bags_of(2, 9)
    x = model.embedding(features[1])
    x = 0.5 * (x + x.mean(0))
    h, t = model.head_map(x), model.tail_map(x)
    near = (h @ t.T).topk(6).indices
    found = []
    for i in range(9):
        tails = t[near[i]]
        p = torch.softmax(tails @ h[i] / math.sqrt(W), 0).unsqueeze(1)
        relation = p * tails + (1 - p) * h[i]
        gate = torch.tanh(h[i] + relation)
        u = tails.sum(1) * gate.sum(1) if sums else (tails * gate).sum(1)
        n = torch.softmax(u, 0) @ tails
        e = functional.leaky_relu(model.plus(h[i] + n)) + functional.leaky_relu(model.times(h[i] * n))
        found.append(e)
    logits = model.head(model.norm(torch.stack(found).mean(0)))
    torch.testing.assert_close(model(bags).scores[1, 0], logits[1] - logits[0], rtol=1e-5, atol=1e-6)


def test_wikg_neighbours_stay_in_their_bag(monkeypatch: pytest.MonkeyPatch) -> None:
    h, t = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0)).unbind(0)
    ptr = torch.tensor([0, 2, 20, 40])
    whole = nearest(h, t, ptr)
    assert whole[:2, 2:].eq(-1).all()
    assert (whole[2:20] >= 2).all()
    assert (whole[2:20] < 20).all()
    monkeypatch.setattr("momkd.models.baselines.wikg._PAIRS", 30)
    assert torch.equal(nearest(h, t, ptr), whole)


def separable(n: int = 80) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(n, 12, generator=stream, dtype=torch.float64) * torch.logspace(-2, 2, 12, dtype=torch.float64)
    x[:, 3] = 5.0  # says nothing
    labels = (x[:, 0] / x[:, 0].std() + torch.randn(n, generator=stream, dtype=torch.float64) > 0).long()
    return x, labels


def standardised(x: Tensor) -> tuple[np.ndarray, float]:
    z = (x - x.mean(0)) / torch.where(x.std(0, unbiased=False) > 1e-6, x.std(0, unbiased=False), torch.inf)
    return z.numpy(), float(z.square().sum() / len(z))


def test_ridge_is_that_of_scikit_learn() -> None:
    x, labels = separable()
    z, unit = standardised(x)
    for penalty, found in zip((0.1, 10.0), ridge_path(Axes(x), labels.double().unsqueeze(1), (0.1, 10.0)), strict=True):
        oracle = Ridge(alpha=penalty * unit).fit(z, labels.numpy())
        np.testing.assert_allclose(found(x)[:, 0].numpy(), oracle.predict(z), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_is_that_of_scikit_learn(classes: int) -> None:
    x, labels = separable()
    labels = labels if classes == 2 else (labels + (x[:, 1] > 0).long())
    z, unit = standardised(x)
    for penalty, found in zip((1.0, 0.1), logistic_path(Axes(x), labels, (1.0, 0.1)), strict=True):
        oracle = LogisticRegression(C=4.0 / (penalty * unit), tol=1e-10, max_iter=10_000).fit(z, labels.numpy())
        scores = oracle.decision_function(z)
        # Of two classes ours has one row of weights, which is penalised as scikit-learn does; of more, the first class
        # has none, so only the fit of two is the same.
        if classes == 2:
            np.testing.assert_allclose(found(x)[:, 0].numpy(), scores, rtol=1e-3, atol=1e-3)
        else:
            ours = np.column_stack([np.zeros(len(x)), found(x).numpy()])
            assert np.mean(ours.argmax(1) == scores.argmax(1)) > 0.9


def test_the_linear_method_ranks_left_out_patients_and_is_calibrated() -> None:
    x, labels = separable(160)
    part = torch.arange(160) % 5
    student = Linear(12, Nominal(2), settings())
    targets = torch.stack([labels.double(), torch.zeros(160, dtype=torch.float64)], 1)
    LinearFit(student, settings(), {}).solve(Known(x, targets, part))
    scores = student.linear(x.float())[:, 0].detach()
    assert roc_auc_score(labels, scores) > 0.75
    assert float(torch.sigmoid(scores).mean()) == pytest.approx(float(labels.double().mean()), abs=0.03)


def test_left_out_scores_do_not_know_their_part() -> None:
    x, labels = separable()
    part = torch.arange(80) % 4
    goal = labels.double().unsqueeze(1)
    before = LeftOut(x, part).scores(ridge_path, goal, (1.0,))
    goal = torch.where(part.unsqueeze(1) == 2, 100.0, goal)
    after = LeftOut(x, part).scores(ridge_path, goal, (1.0,))
    assert torch.equal(before[:, part == 2], after[:, part == 2])
    assert not torch.equal(before[:, part != 2], after[:, part != 2])


def test_auc_and_calibration() -> None:
    scores, labels = torch.tensor([[0.1], [0.4], [0.4], [0.8]]).double(), torch.tensor([0, 1, 0, 1])
    assert macro_auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores[:, 0]))
    x, classes = separable(200)
    one = ridge_path(Axes(x), 100.0 * classes.double().unsqueeze(1), (1.0,))[0]
    told = calibrated(one, one(x), classes)(x)[:, 0]
    oracle = LogisticRegression(C=1e9).fit(one(x).numpy() / 100.0, classes.numpy())
    np.testing.assert_allclose(told.numpy(), oracle.decision_function(one(x).numpy() / 100.0), rtol=2e-3, atol=2e-3)
