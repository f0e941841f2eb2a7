"""Gaussian mixtures: fitting by expectation maximisation, drawing, densities."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import cholesky, solve_triangular

ITERATIONS = 100
"""The most iterations of expectation maximisation."""
TOLERANCE = 1e-5
"""It ends once the mean log-likelihood per dimension rises by less."""
FLOOR = (1e-3, 1e-6)
"""What is added to every variance: this share of the mean variance of all points, and this much."""


class Mixture(NamedTuple):
    """A mixture of K Gaussians in C dimensions."""

    weights: Tensor
    """[K], summing to 1."""
    means: Tensor
    """[K, C]."""
    scales: Tensor
    """[K, C, C]: the lower Cholesky factors of the covariances; or [K, C]: standard deviations, of diagonal ones."""


def fit(points: Tensor, components: int, diagonal: bool, generator: torch.Generator) -> Mixture:
    """Fit a mixture to points [n, C], n ≥ 1, in float64, from means chosen as in k-means++.

    Any points will do: with fewer than components, or equal ones, some components coincide.

    Returns:
        Of float64.
    """
    points = points.double()
    size = points.shape[1]
    mixture = _start(points, components, diagonal, generator)
    before = -math.inf
    for _ in range(ITERATIONS):
        joint = component_log_densities(mixture, points) + mixture.weights.log()
        log_likelihood = float(joint.logsumexp(dim=1).mean()) / size
        if log_likelihood - before < TOLERANCE:
            break
        before = log_likelihood
        mixture = _maximised(points, joint.softmax(dim=1), diagonal)
    return mixture


def _start(points: Tensor, components: int, diagonal: bool, generator: torch.Generator) -> Mixture:
    """Every point belongs to the nearest of some points, each chosen with a chance as its squared distance to those before."""
    chosen = points[torch.randint(len(points), (1,), generator=generator)]
    while len(chosen) < components:
        distance = torch.cdist(points, chosen).square().amin(dim=1)
        chance = distance if float(distance.sum()) > 0 else torch.ones_like(distance)
        chosen = torch.cat([chosen, points[torch.multinomial(chance, 1, generator=generator)]])
    nearest = torch.cdist(points, chosen).argmin(dim=1)
    return _maximised(points, torch.nn.functional.one_hot(nearest, components).to(points), diagonal)


def _maximised(points: Tensor, responsibilities: Tensor, diagonal: bool) -> Mixture:
    """The mixture that is likeliest given responsibilities [n, K]. A component without points lies at the mean of all, weighing nothing."""
    overall = points.mean(dim=0)
    floor = FLOOR[0] * (points - overall).square().mean() + FLOOR[1]
    # A trace of all points keeps every quotient and logarithm finite.
    shares = responsibilities + 1e-12
    totals = shares.sum(dim=0)
    means = shares.T @ points / totals[:, None]
    scales = []
    for mean, share, total in zip(means, shares.T, totals, strict=True):
        centred = points - mean
        if diagonal:
            scales.append((share @ centred.square() / total + floor).sqrt())
        else:
            covariance = (centred * share[:, None]).T @ centred / total
            scales.append(cholesky(covariance + floor * torch.eye(points.shape[1]).to(points)))
    return Mixture(totals / totals.sum(), means, torch.stack(scales))


def component_log_densities(mixture: Mixture, points: Tensor) -> Tensor:
    """Points [n, C] → the log density of each under every component, [n, K]."""
    columns = []
    for mean, scale in zip(mixture.means, mixture.scales, strict=True):
        centred = points - mean
        if scale.ndim == 1:
            white, logdet = centred / scale, scale.log().sum()
        else:
            white, logdet = solve_triangular(scale, centred.T, upper=False).T, scale.diagonal().log().sum()
        columns.append(-0.5 * white.square().sum(dim=1) - logdet)
    return torch.stack(columns, dim=1) - 0.5 * points.shape[1] * math.log(2 * math.pi)


def log_density(mixture: Mixture, points: Tensor) -> Tensor:
    """Points [n, C] → the log density of each, [n]."""
    return (component_log_densities(mixture, points) + mixture.weights.log()).logsumexp(dim=1)


def draw(mixture: Mixture, count: int, generator: torch.Generator) -> Tensor:
    """[count, C] drawn from a mixture on the CPU."""
    which = torch.multinomial(mixture.weights, count, replacement=True, generator=generator) if count else torch.empty(0).long()
    noise = torch.randn(count, mixture.means.shape[1], generator=generator, dtype=mixture.means.dtype)
    scales = mixture.scales
    spread = torch.zeros_like(noise)
    for component, scale in enumerate(scales):
        own = which == component
        spread[own] = noise[own] * scale if scale.ndim == 1 else noise[own] @ scale.T
    return mixture.means[which] + spread
