"""Synthetic scenes of shapes, drawn from a seed: the embedded demonstration needs no data.

A class is a shape, a texture and a hue together. Each of the three is shared among classes, so that no single cue tells
a class, and later classes resemble earlier ones.
"""

from __future__ import annotations

import colorsys
import hashlib
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eircli.common.errors import UserError
from eircli.common.seeds import derive_seed
from eircli.common.types import DataSet, Sample, UInt8Array
from eircli.config.datasets import Shapes
from eircli.data.resize import resize_short_side

Array = NDArray[np.float64]

DRAWING = 1
"""Incremented whenever the same seed would draw other images."""

HUES = {"red": 0.0, "orange": 0.09, "yellow": 0.16, "green": 0.35, "blue": 0.6, "purple": 0.8}
HUE_JITTER = 0.03

CLASSES = (
    "striped red disc", "chequered green square", "plain blue triangle", "dotted yellow star", "plain orange ring", "striped purple cross",
    "dotted red square", "striped green triangle", "chequered blue disc", "plain yellow cross", "dotted purple ring", "chequered orange star",
    "plain red star", "striped blue ring", "dotted green disc", "chequered purple square",
)  # fmt: skip


def class_names(config: Shapes) -> tuple[str, ...]:
    """The first of the classes, as many as the groups contain.

    Raises:
        UserError: more classes than there are.
    """
    count = sum(config.groups)
    if count > len(CLASSES):
        raise UserError(f"dataset.groups: asks for {count} classes, there are {len(CLASSES)}")
    return CLASSES[:count]


def shapes(config: Shapes) -> DataSet:
    """Training images in groups, each with classes of its own, and validation images of all classes alike.

    Raises:
        UserError: more classes than there are.
    """
    return DataSet(class_names(config), ShapesSplit(config, "train"), ShapesSplit(config, "val"))


class ShapesSplit:
    """A split of drawn images; each is a function of seed, split and index, and drawn once."""

    def __init__(self, config: Shapes, name: str) -> None:
        self.config, self.name = config, name
        total = sum(config.train_images) if name == "train" else config.val_images
        self.ids = [f"{name}-{index:05d}" for index in range(total)]
        self._drawn: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int, short_side: int | None = None) -> Sample:
        if index not in self._drawn:
            seed = derive_seed(self.config.seed or 0, "shapes", self.name, index)
            self._drawn[index] = draw(
                self.config.size, np.random.default_rng(seed), self._pools(index), self.config.co_occurrence
            )
        sample = self._drawn[index]
        return sample if short_side is None else resize_short_side(sample, short_side)

    def load_label(self, index: int) -> UInt8Array:
        """uint8 [S, S], class ids."""
        return self.load(index).label

    def present(self, index: int) -> list[int]:
        return [int(class_id) for class_id in np.unique(self.load_label(index))]

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{DRAWING} {self.name} {self.config.model_dump_json()}".encode()).hexdigest()

    def sample_fingerprint(self, index: int) -> str:
        return f"{self.fingerprint()} {index}"

    def _pools(self, index: int) -> tuple[list[int], list[int]]:
        """The class ids that an image's group contains, and all class ids."""
        every = list(range(1, sum(self.config.groups) + 1))
        if self.name != "train":
            return every, every
        group = next(g for g, end in enumerate(accumulate(self.config.train_images)) if index < end)
        start = sum(self.config.groups[:group])
        return every[start : start + self.config.groups[group]], every


def draw(size: int, random: np.random.Generator, pools: tuple[list[int], list[int]], co_occurrence: float) -> Sample:
    """One scene of `size` pixels a side: background, clutter, 1-3 objects, noise.

    The first object is from the first pool; each further one too, or with probability `co_occurrence` from the second
    pool. Later objects hide earlier ones; the first is drawn last where it would hardly be seen.
    """
    own, every = pools
    image = _background(size, random)
    for _ in range(random.integers(0, 3)):
        _clutter(image, random)
    label = np.zeros((size, size), np.uint8)
    objects = []
    for number in range(random.integers(1, 4)):
        pool = every if number and random.random() < co_occurrence else own
        class_id = int(random.choice(pool))
        objects.append((class_id, *_object(size, random, CLASSES[class_id - 1])))
    hidden = np.any([mask for _, mask, _ in objects[1:]], axis=0) if len(objects) > 1 else np.zeros((size, size), bool)
    if (objects[0][1] & ~hidden).sum() < 30 * (size / 64) ** 2:
        objects.append(objects.pop(0))
    for class_id, mask, colours in objects:
        image[mask], label[mask] = colours[mask], class_id
    image += random.normal(0, 0.03, image.shape)
    return Sample((image.clip(0, 1) * 255).astype(np.uint8), label)


def _background(size: int, random: np.random.Generator) -> Array:
    """float [S, S, 3]: dull low-frequency noise and a gradient."""
    coarse = random.uniform(0.25, 0.7, 3) + random.normal(0, 0.09, (random.integers(3, 9), random.integers(3, 9), 3))
    image = Image.fromarray((coarse.clip(0, 1) * 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    slope = random.uniform(-0.15, 0.15, 2)
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    gradient: Array = slope[0] * rows + slope[1] * columns
    return np.asarray(image, float) / 255 + gradient[..., None]


def _clutter(image: Array, random: np.random.Generator) -> None:
    """An unlabelled blob of a plain colour with a soft rim."""
    u, v = _coordinates(len(image), random, (0.06, 0.16))
    blob = np.clip(1.6 - np.hypot(u, v) - 0.25 * np.sin(3 * np.arctan2(v, u)), 0, 1)[..., None] * 0.8
    image += blob * (random.uniform(0.1, 0.9, 3) - image)


def _coordinates(size: int, random: np.random.Generator, radius: tuple[float, float]) -> tuple[Array, Array]:
    """Coordinates of every pixel in a frame that is shifted, turned, and scaled so that the object has radius 1."""
    centre = random.uniform(0.15, 0.85, 2) * size
    aspect = np.sqrt(random.uniform(0.8, 1.25))
    scale = random.uniform(*radius) * size
    angle = random.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:size, :size] + 0.5 - centre[:, None, None]
    u = (np.cos(angle) * columns + np.sin(angle) * rows) / (scale * aspect)
    v = (-np.sin(angle) * columns + np.cos(angle) * rows) / (scale / aspect)
    return u, v


def _object(size: int, random: np.random.Generator, name: str) -> tuple[NDArray[np.bool_], Array]:
    """bool [S, S] mask and float [S, S, 3] colours of an object of the class `name`."""
    texture, hue, shape = name.split()
    u, v = _coordinates(size, random, (0.17, 0.32) if size < 96 else (0.10, 0.26))
    shade = np.where(_pattern(texture, u, v), 1.0, 0.45)
    colour = colorsys.hsv_to_rgb(
        (HUES[hue] + random.uniform(-HUE_JITTER, HUE_JITTER)) % 1, random.uniform(0.6, 0.9), random.uniform(0.7, 0.95)
    )
    light = 1 + random.uniform(-0.15, 0.15) * u + random.uniform(-0.15, 0.15) * v
    return _outline(shape, u, v), (shade * light)[..., None] * np.array(colour)


def _outline(shape: str, u: Array, v: Array) -> NDArray[np.bool_]:
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    match shape:
        case "disc":
            inside = radius < 0.95
        case "ring":
            inside = (radius < 1) & (radius > 0.5)
        case "square":
            inside = np.maximum(abs(u), abs(v)) < 0.82
        case "triangle":
            inside = (v > -0.6) & (abs(u) * np.sqrt(3) + v < 1.1)
        case "star":
            inside = radius < 0.48 + 0.6 * abs(((angle / (2 * np.pi) * 5) % 1) - 0.5) * 2
        case "cross":
            inside = (np.minimum(abs(u), abs(v)) < 0.32) & (np.maximum(abs(u), abs(v)) < 1)
        case _:
            raise AssertionError(shape)
    return np.asarray(inside)


def _pattern(texture: str, u: Array, v: Array) -> NDArray[np.bool_]:
    match texture:
        case "plain":
            bright = np.ones(u.shape, bool)
        case "striped":
            bright = np.sin(7.5 * u) > 0
        case "chequered":
            bright = np.sin(5.5 * u) * np.sin(5.5 * v) > 0
        case "dotted":
            bright = np.cos(7 * u) + np.cos(7 * v) < 0.6
        case _:
            raise AssertionError(texture)
    return np.asarray(bright)
