"""Mixtures: the features of each old class as a mixture of Gaussians.

After CoGaMiD ("Continual Gaussian Mixture Distribution Modeling", NeurIPS 2025). Fitted once, by the step that learns a
class, and kept as they are: how the paper moves them with the features of old classes in later images is not done here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eircli.common.errors import UserError
from eircli.memory.gaussian_mixture import Mixture, draw, fit, log_density


class Mixtures(NamedTuple):
    """What is kept of M classes, float32; cells are those of the network's feature map."""

    class_ids: Tensor
    """int64 [M]."""
    weights: Tensor
    """[M, K], summing to 1 over K components."""
    means: Tensor
    """[M, K, C]."""
    scales: Tensor
    """[M, K, C, C]: lower Cholesky factors of the covariances; or [M, K, C]: standard deviations, of diagonal ones."""
    cells: Tensor
    """[M]: how many cells the class had in the images of the step that learned it."""
    background: Tensor
    """[]: how many cells of background the steps so far had."""

    def of_class(self, position: int) -> Mixture:
        """The mixture of the class at a position."""
        return Mixture(self.weights[position], self.means[position], self.scales[position])


class Reservoir:
    """A uniform draw, of at most `limit`, from all the cells that it is shown."""

    def __init__(self, limit: int, generator: torch.Generator) -> None:
        self.limit, self.generator = limit, generator
        self.keys, self.kept, self.shown = torch.empty(0, dtype=torch.float64), torch.empty(0), 0

    def add(self, features: Tensor) -> None:
        """Show it features [n, C]."""
        features = features.float().cpu()
        self.shown += len(features)
        keys = torch.cat([self.keys, torch.rand(len(features), generator=self.generator, dtype=torch.float64)])
        kept = torch.cat([self.kept, features]) if len(self.kept) else features
        best = keys.topk(min(self.limit, len(keys))).indices.sort().values
        self.keys, self.kept = keys[best], kept[best]


class Fitting(NamedTuple):
    """How mixtures are fitted."""

    components: int
    diagonal: bool
    cells: int
    """The most cells of a class that its mixture is fitted to."""


def gather(
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    channels: Sequence[int],
    class_ids: Sequence[int],
    fitting: Fitting,
    generator: torch.Generator,
) -> Mixtures:
    """The mixtures of `channels`, from (features [N, C, h, w], labels uint8 [N, h, w], is background bool [N, h, w]).

    Raises:
        UserError: a class has no cell.
    """
    reservoirs = {channel: Reservoir(fitting.cells, generator) for channel in channels}
    background = torch.zeros(())
    for features, labels, is_background in batches:
        background += is_background.sum().cpu()
        for channel, reservoir in reservoirs.items():
            reservoir.add(features.permute(0, 2, 3, 1)[labels == channel])
    for channel, class_id in zip(channels, class_ids, strict=True):
        if not reservoirs[channel].shown:
            raise UserError(f"class {class_id}: too small for a mixture: no cell of the feature map holds it")
    fitted = [fit(r.kept, fitting.components, fitting.diagonal, generator) for r in reservoirs.values()]
    weights, means, scales = (torch.stack(parts).float() for parts in zip(*fitted, strict=True))
    cells = torch.tensor([float(r.shown) for r in reservoirs.values()])
    return Mixtures(torch.tensor(class_ids), weights, means, scales, cells, background)


def merge(before: Mixtures, new: Mixtures, shared_background: float) -> Mixtures:
    """The mixtures of both; the share `shared_background` of the new step's background cells is taken to be counted already."""
    background = before.background + (1 - shared_background) * new.background
    joined = {name: torch.cat([getattr(before, name), getattr(new, name)]) for name in Mixtures._fields[:-1]}
    return Mixtures(**joined, background=background)


def sample(mixtures: Mixtures, counts: Tensor, generator: torch.Generator) -> Tensor:
    """Features float [Σ counts, C] drawn from the classes' mixtures on the CPU, `counts` int64 [M] of each, in order of class."""
    return torch.cat([draw(mixtures.of_class(m), int(count), generator) for m, count in enumerate(counts)])


def likelihoods(mixtures: Mixtures, features: Tensor) -> Tensor:
    """Features [n, C] → how likely each class makes them, normalised to sum 1 over the classes, [n, M].

    Of densities their C-th root is taken: in many dimensions the densities' own ratios would be 0 or infinite.
    """
    logs = [log_density(mixtures.of_class(m), features) / features.shape[1] for m in range(len(mixtures.cells))]
    return torch.stack(logs, dim=1).softmax(dim=1)
