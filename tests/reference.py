"""Slow and obvious implementations of the method's mathematics: the oracle that the fast code is tested against.

Plain loops over pixels and channels in float64, nothing shared with the package. "Method §n" names a section of the
method's description. In label maps of channels 0 is background and 255 is ignore.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Corner = tuple[int, int]

BACKGROUND = 0
IGNORE = 255


def _softplus(x: float) -> float:
    """log(1 + exp(x)), without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    if x >= 0.0:
        return 1.0 / (1.0 + math.exp(-x))
    return math.exp(x) / (1.0 + math.exp(x))


def _log_sum_exp(values: list[float]) -> float:
    """log(sum(exp(v))), without overflow."""
    top = max(values)
    total = 0.0
    for value in values:
        total += math.exp(value - top)
    return top + math.log(total)


def _seen_classes(steps: list[list[int]], step: int) -> list[int]:
    """Class ids learned up to and including a step, in the order learned."""
    seen: list[int] = []
    for classes in steps[: step + 1]:
        seen.extend(classes)
    return seen


def select_images(image_ids: list[set[int]], steps: list[list[int]], step: int, part: str, setting: str) -> list[int]:
    """Positions of the images of a part ('train', 'val', 'test') at a step; methods/README.md §1.

    The setting ('overlapped', 'disjoint') only matters to 'train'.
    """
    if part not in ("train", "val", "test"):
        raise ValueError(f"unknown part {part!r}")
    if setting not in ("overlapped", "disjoint"):
        raise ValueError(f"unknown setting {setting!r}")
    new = steps[step]
    seen = _seen_classes(steps, step)
    chosen = []
    for position, ids in enumerate(image_ids):
        has_new = False
        has_seen = False
        has_later = False
        for class_id in ids:
            if class_id in (BACKGROUND, IGNORE):
                continue
            if class_id in new:
                has_new = True
            if class_id in seen:
                has_seen = True
            else:
                has_later = True
        if part == "test":
            take = has_seen
        elif part == "val":
            take = has_new
        elif setting == "disjoint":
            take = has_new and not has_later
        else:
            take = has_new
        if take:
            chosen.append(position)
    return chosen


def visible_label(label: Array, steps: list[list[int]], step: int) -> NDArray[np.uint8]:
    """Label of class ids [H,W] as channels, as training sees it at a step: only this step's classes; methods/README.md §1."""
    channel_of = {}
    for place, class_id in enumerate(_seen_classes(steps, step)):
        channel_of[class_id] = place + 1
    height, width = label.shape
    visible = np.zeros((height, width), dtype=np.uint8)
    for row in range(height):
        for column in range(width):
            class_id = int(label[row, column])
            if class_id == IGNORE:
                visible[row, column] = IGNORE
            elif class_id != BACKGROUND and class_id in steps[step]:
                visible[row, column] = channel_of[class_id]
    return visible


def summed_bce(logits: Array, soft: Array, valid: Array, positive_weight: float = 1.0) -> float:
    """Binary cross-entropy summed over the channels [N,K,H,W], averaged over the valid pixels [N,H,W]; methods/README.md §3.

    The positive weight multiplies the term of the soft label in every channel. No valid pixel: 0.0.
    """
    images, channels, height, width = logits.shape
    total = 0.0
    pixels = 0
    for n in range(images):
        for row in range(height):
            for column in range(width):
                if not valid[n, row, column]:
                    continue
                pixels += 1
                for channel in range(channels):
                    z = float(logits[n, channel, row, column])
                    s = float(soft[n, channel, row, column])
                    log_p = -_softplus(-z)
                    log_not_p = -_softplus(z)
                    total -= positive_weight * s * log_p + (1.0 - s) * log_not_p
    return total / pixels if pixels else 0.0


def rskd(student: Array, teacher: Array, region: Array) -> float:
    """Region-specific distillation: student [N,K,H,W], teacher [N,1+O,H,W], region [N,H,W]; methods/README.md §5.6.

    Pixels outside the region count 0 but are counted in the mean.
    """
    images, student_channels, height, width = student.shape
    teacher_channels = teacher.shape[1]
    total = 0.0
    for n in range(images):
        for row in range(height):
            for column in range(width):
                if not region[n, row, column]:
                    continue
                z = [float(student[n, channel, row, column]) for channel in range(student_channels)]
                u = [float(teacher[n, channel, row, column]) for channel in range(teacher_channels)]
                lse_z = _log_sum_exp(z)
                lse_u = _log_sum_exp(u)
                pixel = 0.0
                for channel in range(teacher_channels):
                    q = math.exp(u[channel] - lse_u)
                    if channel == BACKGROUND:
                        log_p = _log_sum_exp([z[BACKGROUND], *z[teacher_channels:]]) - lse_z
                    else:
                        log_p = z[channel] - lse_z
                    pixel += q * log_p
                total += -pixel / teacher_channels
    return float(total / (images * height * width))


def decomposed(
    student: Array, teacher: Array, soft: Array, valid: Array, region: Array, positive_weight: float = 1.0
) -> tuple[float, float]:
    """The decomposed objective: what labels teach, a mean over the valid pixels [N,H,W]; and what is imitated, over all pixels; methods/README.md §9.1.

    Student [N,K,H,W], teacher [N,1+O,H,W], dense soft labels [N,K,H,W], region [N,H,W]. In every old channel a pixel has
    a share that labels tell of (an old class's label; outside the region a new class's too), and where it is imitated the rest
    of what no old class's label covers.
    """
    images, channels, height, width = student.shape
    old = range(1, teacher.shape[1])
    labelled = imitated = 0.0
    for n in range(images):
        for row in range(height):
            for column in range(width):
                s = [float(soft[n, channel, row, column]) for channel in range(channels)]
                z = [float(student[n, channel, row, column]) for channel in range(channels)]
                of_old, of_new = sum(s[c] for c in old), sum(s[teacher.shape[1] :])
                told = of_old if region[n, row, column] else of_old + of_new
                if valid[n, row, column]:
                    for channel in range(channels):
                        share = told if channel in old else 1.0
                        labelled += positive_weight * s[channel] * _softplus(-z[channel])
                        labelled += (share - s[channel]) * _softplus(z[channel])
                if region[n, row, column]:
                    for channel in old:
                        q = _sigmoid(float(teacher[n, channel, row, column]))
                        cross_entropy = q * _softplus(-z[channel]) + (1.0 - q) * _softplus(z[channel])
                        imitated += (1.0 - of_old) * cross_entropy
    return labelled / float(np.asarray(valid).sum()), imitated / np.asarray(valid).size


def pseudo_labels(labels: Array, teacher_logits: Array, threshold: float) -> NDArray[np.uint8]:
    """Labels [N,H,W] with confident predictions of the teacher [N,1+O,H,W] where they are 0; methods/README.md §5.1.

    The best channel is taken among all, background included; of equal ones the first.
    """
    images, channels, height, width = teacher_logits.shape
    combined = np.zeros((images, height, width), dtype=np.uint8)
    for n in range(images):
        for row in range(height):
            for column in range(width):
                combined[n, row, column] = labels[n, row, column]
                if labels[n, row, column] != BACKGROUND:
                    continue
                best = 0
                for channel in range(1, channels):
                    if teacher_logits[n, channel, row, column] > teacher_logits[n, best, row, column]:
                        best = channel
                if best != BACKGROUND and _sigmoid(float(teacher_logits[n, best, row, column])) >= threshold:
                    combined[n, row, column] = best
    return combined


def potential_classes(labels: Array, combined: Array, limit: int) -> list[int]:
    """Pseudo-labelled channels that are not among the labels [H,W], largest first, at most `limit`; methods/README.md §5.2."""
    height, width = labels.shape
    labelled = set()
    area: dict[int, int] = {}
    for row in range(height):
        for column in range(width):
            label = int(labels[row, column])
            channel = int(combined[row, column])
            labelled.add(label)
            if label == BACKGROUND and channel not in (BACKGROUND, IGNORE):
                area[channel] = area.get(channel, 0) + 1
    potential = [channel for channel in area if channel not in labelled]
    potential.sort(key=lambda channel: (-area[channel], channel))
    return potential[:limit]


def slots(combined: Array, side: int, count: int) -> list[Corner]:
    """Top-left corners of the `count` windows with the most background in labels [H,W], best first; methods/README.md §5.3.

    The windows lie at multiples of `side`, entirely inside; of equal ones the first in row-major order.
    """
    height, width = combined.shape
    ranked = []
    for i in range(height // side):
        for j in range(width // side):
            background = 0
            for row in range(i * side, (i + 1) * side):
                for column in range(j * side, (j + 1) * side):
                    if combined[row, column] == BACKGROUND:
                        background += 1
            ranked.append((-background, i * side, j * side))
    ranked.sort()
    return [(top, left) for _, top, left in ranked[:count]]


def paste(
    image: Array,
    soft: Array,
    instance_rgb: Array,
    instance_mask: Array,
    channel: int,
    corner: Corner,
    side: int,
    lam: float,
    flip: bool,
    growth: float = math.inf,
    spared: Array | None = None,
    feather: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Image [3,H,W] and soft label [K,H,W] (copies) after one paste of an instance [h,w,3] with mask [h,w]; methods/README.md §5.4.

    It grows by at most `growth`, leaves pixels alone that are spared [H,W], and fades by the part of the square of radius `feather`
    around a pixel that is in the scaled mask.

    The instance is mirrored first and scaled afterwards. What overflows is pushed back inside; were the instance larger
    than the image, it would start at 0 and its rest be cut off.
    """
    image = np.array(image, dtype=np.float64)
    soft = np.array(soft, dtype=np.float64)
    height, width = image.shape[1:]
    h, w = instance_mask.shape
    factor = min(side / (w + 2), side / (h + 2), growth)
    new_h = max(1, math.floor(h * factor + 0.5))
    new_w = max(1, math.floor(w * factor + 0.5))
    top = max(0, min(corner[0], height - new_h))
    left = max(0, min(corner[1], width - new_w))

    def source(i: int, j: int) -> Corner:
        source_row = ((2 * i + 1) * h) // (2 * new_h)
        source_column = ((2 * j + 1) * w) // (2 * new_w)
        return source_row, w - 1 - source_column if flip else source_column

    def inside(i: int, j: int) -> bool:
        return 0 <= i < new_h and 0 <= j < new_w and bool(instance_mask[source(i, j)])

    around = range(-feather, feather + 1)
    for i in range(new_h):
        for j in range(new_w):
            row = top + i
            column = left + j
            if not inside(i, j) or row >= height or column >= width:
                continue
            if spared is not None and spared[row, column]:
                continue
            near = [inside(i + down, j + right) for down in around for right in around]
            share = lam * sum(near) / len(near)
            for colour in range(3):
                value = float(instance_rgb[(*source(i, j), colour)])
                image[colour, row, column] = share * value + (1.0 - share) * image[colour, row, column]
            for k in range(soft.shape[0]):
                one_hot = 1.0 if k == channel else 0.0
                soft[k, row, column] = share * one_hot + (1.0 - share) * soft[k, row, column]
    return image, soft


def plan(
    potential: list[int],
    slot_corners: list[Corner],
    old_channels: list[int],
    pastes: int,
    fillers: str,
    fillers_below: int,
    random_classes: list[int],
    stocked: set[int],
) -> list[tuple[int, Corner]]:
    """The pastes (channel, corner) of one image in order; methods/README.md §5.4.

    Potential class i goes to slot i. Filler j is random_classes[j], which goes to slot 0 ('best-slot') or n + j ('spread')
    with n the number of potential classes, skipped ones included. What has no slot or no stock is left out, not replaced.
    """
    if fillers not in ("best-slot", "spread", "none"):
        raise ValueError(f"unknown fillers {fillers!r}")
    n = len(potential)
    wanted = [(potential[i], i) for i in range(n)]
    if fillers != "none" and n < fillers_below:
        drawn = random_classes[: pastes - n]
        wanted.extend((channel, 0 if fillers == "best-slot" else n + j) for j, channel in enumerate(drawn))
    planned = []
    for channel, slot in wanted:
        if channel not in old_channels:
            raise ValueError(f"channel {channel} is not an old one")
        if channel in stocked and slot < len(slot_corners):
            planned.append((channel, slot_corners[slot]))
    return planned


def balanced_quota(supply: dict[int, int], budget: int) -> dict[int, int]:
    """How many instances each class gets, as even as the supply allows, one at a time in rounds; methods/README.md §4."""
    quota = dict.fromkeys(supply, 0)
    left = budget
    handed_out = True
    while handed_out:
        handed_out = False
        for channel, available in supply.items():
            if left > 0 and quota[channel] < available:
                quota[channel] += 1
                left -= 1
                handed_out = True
    return quota


def components(mask: Array) -> list[NDArray[np.bool_]]:
    """The 8-connected components of a mask [H,W], in row-major order of their first pixels; methods/README.md §4."""
    height, width = mask.shape
    visited = np.zeros((height, width), dtype=bool)
    found = []
    for first_row in range(height):
        for first_column in range(width):
            if not mask[first_row, first_column] or visited[first_row, first_column]:
                continue
            component = np.zeros((height, width), dtype=bool)
            visited[first_row, first_column] = True
            waiting = [(first_row, first_column)]
            while waiting:
                row, column = waiting.pop()
                component[row, column] = True
                for r in (row - 1, row, row + 1):
                    for c in (column - 1, column, column + 1):
                        if 0 <= r < height and 0 <= c < width and mask[r, c] and not visited[r, c]:
                            visited[r, c] = True
                            waiting.append((r, c))
            found.append(component)
    return found


def confusion(truth: Array, prediction: Array, k: int) -> NDArray[np.int64]:
    """Confusion matrix [k,k] of two label maps [H,W], rows truth; ignored pixels of the truth do not count; methods/README.md §7."""
    height, width = truth.shape
    counts = np.zeros((k, k), dtype=np.int64)
    for row in range(height):
        for column in range(width):
            true = int(truth[row, column])
            predicted = int(prediction[row, column])
            if true == IGNORE:
                continue
            counts[true, predicted] += 1
    return counts


def _mean(values: list[float | None]) -> float | None:
    """Mean of the values that are not None; None if there are none."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def iou_figures(confusion: Array, base_count: int, absent: str = "zero") -> dict[str, Any]:
    """Figures of a confusion matrix [k,k]: 'iou' per class, means 'old', 'new', 'all', and 'harmonic'; methods/README.md §7.

    A class is absent if neither truth nor prediction has a pixel of it: its IoU is 0.0 ('zero'), or None and left out of
    the means ('skip'). 'old' is background and the first base_count classes, 'all' the mean over all classes.
    """
    if absent not in ("zero", "skip"):
        raise ValueError(f"unknown convention {absent!r}")
    k = confusion.shape[0]
    iou: list[float | None] = []
    for c in range(k):
        true = 0
        predicted = 0
        for other in range(k):
            true += int(confusion[c, other])
            predicted += int(confusion[other, c])
        both = int(confusion[c, c])
        union = true + predicted - both
        if union > 0:
            iou.append(both / union)
        else:
            iou.append(0.0 if absent == "zero" else None)
    old = _mean(iou[: 1 + base_count])
    new = _mean(iou[1 + base_count :])
    harmonic: float | None
    if old is None or new is None:
        harmonic = None
    elif old + new == 0.0:
        harmonic = 0.0
    else:
        harmonic = 2.0 * old * new / (old + new)
    return {"iou": iou, "old": old, "new": new, "all": _mean(iou), "harmonic": harmonic}


def learning_rate(iteration: int, total: int, base_lr: float, power: float, warmup_fraction: float) -> float:
    """Learning rate at an iteration (from 0, below total): linear warm-up times polynomial decay; methods/README.md §6."""
    warmup = round(warmup_fraction * total)
    rate = base_lr * (1.0 - iteration / total) ** power
    if iteration < warmup:
        rate *= (iteration + 1) / warmup
    return float(rate)
