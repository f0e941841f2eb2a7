"""Slow and obvious implementations of the rival methods' formulas: the oracle that the fast code is tested against.

Plain loops over pixels, cells and classes in float64, nothing shared with the package. Logits are [N,K,H,W] with
K = 1 + old + new channels, a teacher's [N,1+old,H,W]; in labels [N,H,W] 0 is background and 255 is ignore.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.reference import BACKGROUND, IGNORE, Array, _log_sum_exp, _sigmoid, _softplus

Floats = NDArray[np.float64]


def _at(maps: Array, n: int, row: int, column: int) -> list[float]:
    """The values of all channels of maps [N,K,H,W] at one pixel."""
    return [float(maps[n, channel, row, column]) for channel in range(maps.shape[1])]


def _log_softmax(values: list[float]) -> list[float]:
    """Logarithms of the softmax probabilities."""
    lse = _log_sum_exp(values)
    return [value - lse for value in values]


def _bce(z: float, target: float, positive_weight: float = 1.0) -> float:
    """Binary cross-entropy of sigmoid(z) against a hard or soft target."""
    return positive_weight * target * _softplus(-z) + (1.0 - target) * _softplus(z)


def _dot(a: list[float], b: list[float]) -> float:
    """Inner product."""
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


def _unit(vector: list[float]) -> list[float]:
    """The vector over its Euclidean norm; the zero vector stays zero."""
    norm = math.sqrt(_dot(vector, vector))
    return [value / norm if norm > 0.0 else 0.0 for value in vector]


def cross_entropy(z: Array, labels: Array) -> Floats:
    """Per pixel [N,H,W] -log softmax(z)[label]; 0 at ignored pixels."""
    loss = np.zeros(labels.shape, dtype=np.float64)
    for n, row, column in np.ndindex(*labels.shape):
        label = int(labels[n, row, column])
        if label != IGNORE:
            loss[n, row, column] = -_log_softmax(_at(z, n, row, column))[label]
    return loss


def unbiased_cross_entropy(z: Array, labels: Array, old: int) -> Floats:
    """Cross-entropy per pixel [N,H,W] in which background means background or any old class; MiB (CVPR 2020), eq. 5-6."""
    loss = np.zeros(labels.shape, dtype=np.float64)
    for n, row, column in np.ndindex(*labels.shape):
        label = int(labels[n, row, column])
        if label == IGNORE:
            continue
        log_p = _log_softmax(_at(z, n, row, column))
        if label == BACKGROUND:
            loss[n, row, column] = -_log_sum_exp(log_p[: 1 + old])
        else:
            loss[n, row, column] = -log_p[label]
    return loss


def plain_distillation(z: Array, u: Array, valid: Array) -> float:
    """Cross-entropy of the student's softmax over the teacher's channels, over their number; LwF (ECCV 2016).

    The student's softmax is over these channels alone, the mean over valid pixels [N,H,W].
    """
    channels = u.shape[1]
    total = 0.0
    pixels = 0
    for n, row, column in np.ndindex(*valid.shape):
        if not valid[n, row, column]:
            continue
        pixels += 1
        log_p = _log_softmax(_at(z, n, row, column)[:channels])
        log_q = _log_softmax(_at(u, n, row, column))
        pixel = 0.0
        for c in range(channels):
            pixel += math.exp(log_q[c]) * log_p[c]
        total += -pixel / channels
    return total / pixels if pixels else 0.0


def new_classes_bce(z_new: Array, labels: Array, old: int, positive_weight: float) -> float:
    """Binary cross-entropy summed over the new channels [N,new,H,W], mean over valid pixels; DKD (NeurIPS 2022)."""
    total = 0.0
    pixels = 0
    for n, row, column in np.ndindex(*labels.shape):
        label = int(labels[n, row, column])
        if label == IGNORE:
            continue
        pixels += 1
        for j in range(z_new.shape[1]):
            target = 1.0 if label == old + 1 + j else 0.0
            total += _bce(float(z_new[n, j, row, column]), target, positive_weight)
    return total / pixels if pixels else 0.0


def imitation_bce(z: Array, u: Array, valid: Array) -> float:
    """Binary cross-entropy against sigmoid(u), summed over channels [N,k,H,W], mean over valid pixels; DKD (NeurIPS 2022)."""
    total = 0.0
    pixels = 0
    for n, row, column in np.ndindex(*valid.shape):
        if not valid[n, row, column]:
            continue
        pixels += 1
        for c in range(z.shape[1]):
            total += _bce(float(z[n, c, row, column]), _sigmoid(float(u[n, c, row, column])))
    return total / pixels if pixels else 0.0


def decomposed(features: Array, weight: Array) -> tuple[Floats, Floats]:
    """Logits [N,k,h,w] of the positive and of the negative weights [k,C] alone; DKD (NeurIPS 2022)."""
    images, channels, height, width = features.shape
    classes = weight.shape[0]
    positive = np.zeros((images, classes, height, width), dtype=np.float64)
    negative = np.zeros((images, classes, height, width), dtype=np.float64)
    for n, c, row, column in np.ndindex(images, classes, height, width):
        for i in range(channels):
            w = float(weight[c, i])
            f = float(features[n, i, row, column])
            positive[n, c, row, column] += max(w, 0.0) * f
            negative[n, c, row, column] += min(w, 0.0) * f
    return positive, negative


def normalised_entropy(u: Array) -> tuple[Floats, NDArray[np.int64]]:
    """Entropy of softmax(u) over its maximum, and the best channel (of equal ones the first), [N,H,W]; PLOP (CVPR 2021), §3.3."""
    images, channels, height, width = u.shape
    entropy = np.zeros((images, height, width), dtype=np.float64)
    best_channel = np.zeros((images, height, width), dtype=np.int64)
    for n, row, column in np.ndindex(images, height, width):
        values = _at(u, n, row, column)
        total = 0.0
        for log_p in _log_softmax(values):
            total -= math.exp(log_p) * log_p
        entropy[n, row, column] = total / math.log(channels)
        best = 0
        for c in range(channels):
            if values[c] > values[best]:
                best = c
        best_channel[n, row, column] = best
    return entropy, best_channel


def gated_pseudo_labels(labels: Array, u: Array, thresholds: Sequence[float] | Floats) -> tuple[NDArray[np.int64], Floats]:
    """Targets [N,H,W] with the teacher's sure predictions on background, unsure ones ignored; PLOP (CVPR 2021), §3.3.

    And the factor [N]: the share of an image's background pixels that are sure, 1.0 if it has none.
    """
    images, height, width = labels.shape
    entropy, best = normalised_entropy(u)
    targets = np.zeros((images, height, width), dtype=np.int64)
    factor = np.ones(images, dtype=np.float64)
    for n in range(images):
        background = 0
        sure = 0
        for row, column in np.ndindex(height, width):
            targets[n, row, column] = labels[n, row, column]
            if labels[n, row, column] != BACKGROUND:
                continue
            background += 1
            channel = int(best[n, row, column])
            if entropy[n, row, column] < thresholds[channel]:
                sure += 1
                targets[n, row, column] = channel
            else:
                targets[n, row, column] = IGNORE
        if background > 0:
            factor[n] = sure / background
    return targets, factor


def entropy_medians(batches: Sequence[tuple[Array, Array]], old: int) -> Floats:
    """Median normalised entropy [1+old] of the background pixels by best channel, nan if none; PLOP (CVPR 2021), §3.3.

    The batches are pairs (labels, teacher logits).
    """
    found: list[list[float]] = [[] for _ in range(1 + old)]
    for labels, u in batches:
        entropy, best = normalised_entropy(u)
        for n, row, column in np.ndindex(*labels.shape):
            if labels[n, row, column] == BACKGROUND:
                found[int(best[n, row, column])].append(float(entropy[n, row, column]))
    medians = np.full(1 + old, math.nan, dtype=np.float64)
    for channel in range(1 + old):
        if found[channel]:
            medians[channel] = np.median(found[channel])
    return medians


def released_thresholds(batches: Sequence[tuple[Array, Array]], old: int, new: int, least: float) -> Floats:
    """Thresholds [1+old] of PLOP's released gate, of `released_entropy`: its walk through 100 bins, running sum and all."""
    counts = [[0] * 100 for _ in range(1 + old)]
    for labels, u in batches:
        entropy, best = released_entropy(u, new)
        for n, row, column in np.ndindex(*labels.shape):
            if labels[n, row, column] == BACKGROUND:
                counts[int(best[n, row, column])][min(int(entropy[n, row, column] * 100), 99)] += 1
    thresholds = np.zeros(1 + old, dtype=np.float64)
    for channel in range(1 + old):
        thresholds[channel] = max(released_median(counts[channel]), least)
    return thresholds


def released_median(counts: Sequence[int]) -> float:
    """What PLOP's released code takes for the median of a histogram over 0..1: its running sum adds the bins' numbers."""
    half = sum(counts) / 2
    if half == 0:
        return 0.0
    running = 0
    for number, count in enumerate(counts):
        if running <= half <= running + count:
            if count == 0:
                return math.nan
            return (number + (half - running) / count) / len(counts)
        running += number
    if counts[-1] == 0:
        return math.inf if half > running else -math.inf
    return (len(counts) - 1 + (half - running) / counts[-1]) / len(counts)


def released_entropy(u: Array, new: int) -> tuple[Floats, NDArray[np.int64]]:
    """PLOP's released measure: the mean, not the sum, of -p·log(p) over log(channels) and over log(channels + new); and the best."""
    entropy, best = normalised_entropy(u)
    channels = u.shape[1]
    return entropy / channels / math.log(channels + new), best


def _pod_embedding(image: Array, scales: Sequence[int]) -> list[float]:
    """The row and column means of all windows of the squared map [C,H,W] at all scales that fit, one after another."""
    channels, height, width = image.shape
    embedding = []
    for s in scales:
        if s > min(height, width):
            continue
        h = height // s
        w = width // s
        for i, j, c in np.ndindex(s, s, channels):
            for row in range(i * h, (i + 1) * h):
                total = 0.0
                for column in range(j * w, (j + 1) * w):
                    total += float(image[c, row, column]) ** 2
                embedding.append(total / w)
            for column in range(j * w, (j + 1) * w):
                total = 0.0
                for row in range(i * h, (i + 1) * h):
                    total += float(image[c, row, column]) ** 2
                embedding.append(total / h)
    return embedding


def local_pod(a: Array, b: Array, scales: Sequence[int]) -> float:
    """Distance of the images' multi-scale pooled embeddings, mean over the images [N,C,H,W]; PLOP (CVPR 2021), §3.2."""
    images = a.shape[0]
    total = 0.0
    for n in range(images):
        of_a = _pod_embedding(a[n], scales)
        of_b = _pod_embedding(b[n], scales)
        total += math.dist(of_a, of_b)
    return float(total / images)


def merge_new_into_background(z: Array, old: int) -> Floats:
    """Logits [N,1+old,H,W] whose background is the sum of background's and the new classes' logits."""
    images, channels, height, width = z.shape
    merged = np.zeros((images, 1 + old, height, width), dtype=np.float64)
    for n, c, row, column in np.ndindex(images, channels, height, width):
        merged[n, c if c <= old else BACKGROUND, row, column] += float(z[n, c, row, column])
    return merged


def prototypes(features: Sequence[Array]) -> dict[str, Any]:
    """One class's 'direction' [C], 'noise' [C], 'norm_mean' and 'norm_std' from its vectors [C]; STAR (NeurIPS 2023)."""
    vectors = [[float(value) for value in feature] for feature in features]
    units = [_unit(vector) for vector in vectors]
    norms = [math.sqrt(_dot(vector, vector)) for vector in vectors]
    count = len(vectors)
    dimensions = len(vectors[0])
    summed = [0.0] * dimensions
    for unit in units:
        for d in range(dimensions):
            summed[d] += unit[d]
    direction = _unit(summed)
    noise = []
    for d in range(dimensions):
        squares = 0.0
        for unit in units:
            squares += (unit[d] - direction[d]) ** 2
        noise.append(math.sqrt(squares / count))
    norm_mean = sum(norms) / count
    variance = 0.0
    for norm in norms:
        variance += (norm - norm_mean) ** 2 / count
    return {
        "direction": np.array(direction, dtype=np.float64),
        "noise": np.array(noise, dtype=np.float64),
        "norm_mean": norm_mean,
        "norm_std": math.sqrt(variance),
    }


def sad(features: Array, shares: Array, directions: Array) -> float:
    """Mean over new classes of 1 / distance to the nearest old direction [K_old,C]; STAR (NeurIPS 2023).

    A class's own direction is that of its cells' unit features [N,C,h,w] weighted by its shares [new,N,h,w]; one without
    shares does not count. No class: 0.0.
    """
    images, channels, height, width = features.shape
    terms = []
    for j in range(shares.shape[0]):
        summed = [0.0] * channels
        present = False
        for n, row, column in np.ndindex(images, height, width):
            share = float(shares[j, n, row, column])
            if share > 0.0:
                present = True
            unit = _unit(_at(features, n, row, column))
            for i in range(channels):
                summed[i] += share * unit[i]
        if not present:
            continue
        own = _unit(summed)
        nearest = min(math.dist(own, [float(value) for value in direction]) for direction in directions)
        terms.append(1.0 / nearest)
    return sum(terms) / len(terms) if terms else 0.0


def ocfm(student: Array, teacher: Array, held: Array) -> float:
    """Mean squared difference of the features [N,C,h,w] in the held cells [N,h,w], 0.0 if none; STAR (NeurIPS 2023)."""
    channels = student.shape[1]
    total = 0.0
    cells = 0
    for n, row, column in np.ndindex(*held.shape):
        if not held[n, row, column]:
            continue
        cells += 1
        for i in range(channels):
            total += (float(student[n, i, row, column]) - float(teacher[n, i, row, column])) ** 2
    return total / (cells * channels) if cells else 0.0


def label_guided_distillation(z: Array, u: Array, labels: Array) -> Floats:
    """Per pixel [N,H,W] the cross-entropy of the teacher's softmax, background's share moved to a labelled new class; MBS (ECCV 2024).

    Over the student's channels, divided by their number; new classes have no other share.
    """
    channels, old = z.shape[1], u.shape[1] - 1
    loss = np.zeros(labels.shape, dtype=np.float64)
    for n, row, column in np.ndindex(*labels.shape):
        label = int(labels[n, row, column])
        q = [math.exp(value) for value in _log_softmax(_at(u, n, row, column))] + [0.0] * (channels - 1 - old)
        if old < label < channels:
            q[label] = q[BACKGROUND]
            q[BACKGROUND] = 0.0
        log_p = _log_softmax(_at(z, n, row, column))
        loss[n, row, column] = -_dot(q, log_p) / channels
    return loss


def selective_labels(labels: Array, u: Array, threshold: float) -> NDArray[np.int64]:
    """Labels [N,H,W] whose background is a sure old class, or ignored where old classes together beat background; MBS (ECCV 2024)."""
    found = np.zeros(labels.shape, dtype=np.int64)
    for n, row, column in np.ndindex(*labels.shape):
        found[n, row, column] = labels[n, row, column]
        if labels[n, row, column] != BACKGROUND:
            continue
        q = [math.exp(value) for value in _log_softmax(_at(u, n, row, column))]
        best = q.index(max(q))
        if best != BACKGROUND and q[best] >= threshold:
            found[n, row, column] = best
        elif sum(q[1:]) > q[BACKGROUND]:
            found[n, row, column] = IGNORE
    return found


def squared_cosines(weight: Array, new: int) -> float:
    """Mean squared cosine of each of the last `new` rows of weight [K,C] with every other row; MBS (ECCV 2024)."""
    rows = [_unit([float(value) for value in row]) for row in weight]
    terms = []
    for j in range(len(rows) - new, len(rows)):
        terms += [_dot(rows[j], rows[k]) ** 2 for k in range(len(rows)) if k != j]
    return sum(terms) / len(terms)


def adaptive_feature_distance(ours: Array, theirs: Array, u: Array, labels: Array, old: int) -> float:
    """Mean over all cells of the features' mean squared difference, weighted by the teacher's best softmax; MBS (ECCV 2024).

    Cells [N,h,w] labelled with a new class weigh nothing.
    """
    total = 0.0
    for n, row, column in np.ndindex(*labels.shape):
        if old < labels[n, row, column] < IGNORE:
            continue
        certainty = math.exp(max(_log_softmax(_at(u, n, row, column))))
        difference = 0.0
        for c in range(ours.shape[1]):
            difference += (float(ours[n, c, row, column]) - float(theirs[n, c, row, column])) ** 2
        total += certainty * difference / ours.shape[1]
    return total / labels.size


def uncertainty(z: Array, labels: Array, old: int, sure: float) -> Floats:
    """Per pixel [N,H,W] (1 - margin)^2 of new classes' pixels that are not confidently right; CoGaMiD (NeurIPS 2025).

    z has no background channel: class c is at c - 1.
    """
    loss = np.zeros(labels.shape, dtype=np.float64)
    for n, row, column in np.ndindex(*labels.shape):
        label = int(labels[n, row, column])
        if not old < label < IGNORE:
            continue
        scores = [_sigmoid(value) for value in _at(z, n, row, column)]
        own = scores.pop(label - 1)
        if own > max(scores) and own >= sure:
            continue
        loss[n, row, column] = (1.0 - (own - max(scores))) ** 2
    return loss


def nearest_old_classes(u: Array, labels: Array, new: int) -> NDArray[np.int64]:
    """How many pixels of each new class have each old class as the teacher's best, background aside, [new,old]; SELECT (BMVC 2026)."""
    old = u.shape[1] - 1
    counts = np.zeros((new, old), dtype=np.int64)
    for n, row, column in np.ndindex(*labels.shape):
        label = int(labels[n, row, column])
        if old < label < IGNORE:
            values = _at(u, n, row, column)[1:]
            counts[label - 1 - old, values.index(max(values))] += 1
    return counts


def farthest_first(features: Array) -> list[int]:
    """Order of unit vectors [n,C]: the one nearest the mean, then each time the farthest from those chosen; ties: the first."""
    vectors = [[float(value) for value in feature] for feature in features]
    count = len(vectors)
    if count == 0:
        return []
    mean = [0.0] * len(vectors[0])
    for vector in vectors:
        for d in range(len(mean)):
            mean[d] += vector[d] / count
    first = 0
    for i in range(count):
        if _dot(vectors[i], mean) > _dot(vectors[first], mean):
            first = i
    chosen = [first]
    while len(chosen) < count:
        best = -1
        best_distance = -math.inf
        for i in range(count):
            if i in chosen:
                continue
            distance = min(1.0 - _dot(vectors[i], vectors[c]) for c in chosen)
            if distance > best_distance:
                best = i
                best_distance = distance
        chosen.append(best)
    return chosen


def share_out_bytes_ok(
    kept: dict[str, list[int]], ranked: dict[str, list[int]], sizes: dict[tuple[str, int], int], budget: int
) -> bool:
    """Whether the kept items fit the budget, keep each class's ranking, and leave no room that is wasted.

    Wasted: one of a class's first 17 ranked items after its last kept one would still fit.
    """
    total = 0
    for name, items in kept.items():
        for item in items:
            total += sizes[name, item]
    if total > budget:
        return False
    after = dict.fromkeys(ranked, 0)  # place in the ranking just after the last kept item
    for name, items in kept.items():
        for item in items:
            rest = ranked.get(name, [])[after.get(name, 0) :]
            if item not in rest:
                return False
            after[name] += rest.index(item) + 1
    for name, ranking in ranked.items():
        for item in ranking[after[name] :][:17]:
            if sizes[name, item] <= budget - total:
                return False
    return True
