"""Gaussian mixtures: expectation maximisation, drawing, densities, and what is kept of classes by them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from eircli.common.errors import UserError
from eircli.memory.gaussian_mixture import FLOOR, Mixture, component_log_densities, draw, fit, log_density
from eircli.memory.mixtures import Fitting, Mixtures, Reservoir, gather, likelihoods, merge, sample
from eircli.memory.tensor_file import read_tensors, write_tensors


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clusters(diagonal: bool = False) -> tuple[Tensor, Mixture]:
    """900 points of three far clusters in four dimensions, and the mixture they are drawn from."""
    generator = seeded()
    means = torch.tensor([[0.0, 0, 0, 0], [20, 0, 0, 5], [0, 30, -9, 0]], dtype=torch.float64)
    if diagonal:
        scales = 0.5 + torch.rand(3, 4, generator=generator, dtype=torch.float64)
    else:
        scales = torch.eye(4).double() + 0.5 * torch.randn(3, 4, 4, generator=generator, dtype=torch.float64).tril(-1)
    true = Mixture(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), means, scales)
    return draw(true, 900, generator), true


def covariance(scale: Tensor) -> np.ndarray:
    return (scale.square().diag() if scale.ndim == 1 else scale @ scale.T).double().numpy()


@pytest.mark.parametrize("diagonal", [False, True])
def test_densities_are_the_normal_distributions(diagonal: bool) -> None:
    points, mixture = clusters(diagonal)
    found = component_log_densities(mixture, points[:20])
    for k, (mean, scale) in enumerate(zip(mixture.means, mixture.scales, strict=True)):
        np.testing.assert_allclose(found[:, k], multivariate_normal(mean.numpy(), covariance(scale)).logpdf(points[:20].numpy()))
    total = sum(
        w * multivariate_normal(m.numpy(), covariance(s)).pdf(points[:20].numpy())
        for w, m, s in zip(mixture.weights.tolist(), mixture.means, mixture.scales, strict=True)
    )
    np.testing.assert_allclose(log_density(mixture, points[:20]), np.log(total))


@pytest.mark.parametrize("diagonal", [False, True])
def test_clusters_are_found(diagonal: bool) -> None:
    points, true = clusters(diagonal)
    found = fit(points, 3, diagonal, seeded(1))
    order = found.weights.argsort(descending=True)
    np.testing.assert_allclose(found.weights[order], true.weights, atol=0.05)
    np.testing.assert_allclose(found.means[order], true.means, atol=0.3)
    for k, scale in zip(order.tolist(), true.scales, strict=True):
        np.testing.assert_allclose(covariance(found.scales[k]), covariance(scale), atol=0.6)


@pytest.mark.parametrize("diagonal", [False, True])
def test_a_fit_is_where_expectation_maximisation_stands_still(diagonal: bool) -> None:
    """By loops over points: responsibilities by Bayes' rule, then weighted means and covariances."""
    points = torch.cat([torch.randn(60, 2, generator=seeded(2)), 2 + torch.randn(40, 2, generator=seeded(3))]).double()
    found = fit(points, 2, diagonal, seeded(4))
    chances, values = np.zeros((100, 2)), points.numpy()
    for n, point in enumerate(values):
        for k in range(2):
            normal = multivariate_normal(found.means[k].numpy(), covariance(found.scales[k]))
            chances[n, k] = float(found.weights[k]) * normal.pdf(point)
        chances[n] /= chances[n].sum()
    floor = FLOOR[0] * float(points.var(dim=0, unbiased=False).mean()) + FLOOR[1]
    for k in range(2):
        total = sum(chances[n, k] for n in range(100))
        mean = sum(chances[n, k] * values[n] for n in range(100)) / total
        spread = sum(chances[n, k] * np.outer(values[n] - mean, values[n] - mean) for n in range(100)) / total
        spread = (np.diag(np.diag(spread)) if diagonal else spread) + floor * np.eye(2)
        assert float(found.weights[k]) == pytest.approx(total / 100, abs=0.01)
        np.testing.assert_allclose(found.means[k], mean, atol=0.05)
        np.testing.assert_allclose(covariance(found.scales[k]), spread, atol=0.05)


def test_more_components_explain_no_less() -> None:
    points, _ = clusters()
    one, three = (float(log_density(fit(points, k, False, seeded()), points).mean()) for k in (1, 3))
    assert three > one + 1


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize(
    "points",
    [
        torch.ones(1, 5),
        torch.full((40, 5), 3.0),
        torch.arange(10.0).view(2, 5),
        torch.zeros(7, 5),
        torch.randn(6, 64, generator=torch.Generator().manual_seed(0)),
        torch.cat([torch.zeros(99, 5), 1e4 * torch.ones(1, 5)]),
    ],
    ids=["one", "identical", "fewer", "zeros", "wide", "outlier"],
)
def test_any_points_will_do(points: Tensor, diagonal: bool) -> None:
    found = fit(points, 3, diagonal, seeded())
    assert all(bool(part.isfinite().all()) for part in found)
    assert float(found.weights.sum()) == pytest.approx(1)
    kept = Mixture(*(part.float() for part in found))
    assert bool(log_density(kept, points).isfinite().all())
    drawn = draw(kept, 500, seeded(1))
    tolerance = 0.2 * float(points.std()) + 0.01 if len(points) > 1 else 0.01
    np.testing.assert_allclose(drawn.mean(dim=0), points.mean(dim=0), atol=tolerance)


@pytest.mark.parametrize("diagonal", [False, True])
def test_draws_follow_the_mixture(diagonal: bool) -> None:
    _, mixture = clusters(diagonal)
    drawn = draw(mixture, 40_000, seeded(1))
    mean = mixture.weights @ mixture.means
    np.testing.assert_allclose(drawn.mean(dim=0), mean, atol=0.3)
    parts = zip(mixture.weights.tolist(), mixture.means, mixture.scales, strict=True)
    expected = sum(w * (covariance(s) + np.outer((m - mean).numpy(), (m - mean).numpy())) for w, m, s in parts)
    np.testing.assert_allclose(np.cov(drawn.T.numpy()), expected, rtol=0.05, atol=2)
    assert draw(mixture, 0, seeded()).shape == (0, 4)


def test_a_reservoir_keeps_any_cell_alike() -> None:
    kept_of_first = []
    for seed in range(60):
        reservoir = Reservoir(10, seeded(seed))
        for start in range(0, 100, 25):
            reservoir.add(torch.arange(start, start + 25.0).view(-1, 1))
        assert (len(reservoir.kept), len(set(reservoir.kept.flatten().tolist())), reservoir.shown) == (10, 10, 100)
        kept_of_first.append(int((reservoir.kept < 25).sum()))
    assert np.mean(kept_of_first) == pytest.approx(2.5, abs=0.6)
    few = Reservoir(10, seeded())
    few.add(torch.ones(3, 2))
    few.add(torch.empty(0, 2))
    assert few.kept.shape == (3, 2)


def batches(seed: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    generator = seeded(seed)
    made = []
    for _ in range(3):
        labels = torch.randint(0, 4, (2, 4, 5), generator=generator).to(torch.uint8)
        made.append((torch.rand(2, 6, 4, 5, generator=generator) + labels[:, None], labels, labels == 0))
    return made


@pytest.mark.parametrize("diagonal", [False, True])
def test_mixtures_of_classes_are_gathered_merged_and_kept_in_a_file(tmp_path: Path, diagonal: bool) -> None:
    fitting = Fitting(components=2, diagonal=diagonal, cells=9)
    one, two = gather(batches(0), [1, 2], [11, 12], fitting, seeded()), gather(batches(1), [3], [13], fitting, seeded())
    assert one.scales.shape == ((2, 2, 6) if diagonal else (2, 2, 6, 6))
    assert one.cells.tolist() == [sum(int((labels == c).sum()) for _, labels, _ in batches(0)) for c in (1, 2)]
    assert int(one.background) == sum(int((labels == 0).sum()) for _, labels, _ in batches(0))
    for k in (0, 1):
        np.testing.assert_allclose(one.weights[k] @ one.means[k], torch.full((6,), k + 1.5), atol=0.4)
    again = gather(batches(0), [1, 2], [11, 12], fitting, seeded())
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    merged = merge(one, two, 0.25)
    assert merged.class_ids.tolist() == [11, 12, 13]
    assert float(merged.background) == float(one.background) + 0.75 * float(two.background)
    write_tensors(tmp_path / "m.h5", "mixtures", merged, {"step": 2})
    assert all(torch.equal(a, b) for a, b in zip(merged, read_tensors(tmp_path / "m.h5", "mixtures", Mixtures), strict=True))
    with pytest.raises(UserError, match=r"m\.h5: holds no prototypes"):
        read_tensors(tmp_path / "m.h5", "prototypes", Mixtures)
    with pytest.raises(UserError, match="class 99: too small for a mixture"):
        gather(batches(0), [9], [99], fitting, seeded())


def test_likelihoods_are_normalised_roots_and_drawn_features_are_likeliest_of_their_class() -> None:
    mixtures = gather(batches(0), [1, 2, 3], [1, 2, 3], Fitting(2, False, 50), seeded())
    drawn = sample(mixtures, torch.tensor([30, 0, 20]), seeded(1))
    found = likelihoods(mixtures, drawn)
    assert drawn.shape == (50, 6)
    assert float((found.argmax(dim=1) == torch.tensor([0] * 30 + [2] * 20)).float().mean()) > 0.9
    for n in (0, 40):
        densities = []
        for m in range(3):
            parts = zip(mixtures.weights[m].tolist(), mixtures.means[m], mixtures.scales[m], strict=True)
            densities.append(sum(w * multivariate_normal(c.numpy(), covariance(s)).pdf(drawn[n].numpy()) for w, c, s in parts))
        roots = [density ** (1 / 6) for density in densities]
        np.testing.assert_allclose(found[n], [root / sum(roots) for root in roots], rtol=1e-3, atol=1e-4)
