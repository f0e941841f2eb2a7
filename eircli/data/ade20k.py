"""ADE20K scene parsing (ADEChallengeData2016), 150 classes."""

from __future__ import annotations

from eircli.common.errors import UserError
from eircli.common.types import DataSet
from eircli.config.datasets import Ade20k
from eircli.data.files import Complain, pair_files, raise_it

CLASSES = tuple(
    """wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door, table,
    mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair, seat, fence,
    desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter, sand, sink,
    skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow, screen door, stairway,
    river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island,
    computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight,
    booth, television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet,
    poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket,
    waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake,
    dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate,
    monitor, bulletin board, shower, radiator, glass, clock, flag""".replace("\n    ", " ").split(", ")
)

IMAGES = {"training": 20_210, "validation": 2_000}
"""How many images each split has."""


def class_names(config: Ade20k) -> tuple[str, ...]:
    """The 150 classes."""
    return CLASSES


def ade20k(config: Ade20k, complain: Complain = raise_it) -> DataSet:
    """The training and validation splits; label id 0, "other objects", is background.

    Args:
        complain: as for `pair_files`.
    """
    if not config.root.is_dir():
        raise UserError(f"dataset.root: {config.root} is no folder; set it to ADEChallengeData2016 with --set dataset.root=…")
    train, val = (
        pair_files(config.root / "images" / s, config.root / "annotations" / s, len(CLASSES), complain=complain) for s in IMAGES
    )
    return DataSet(CLASSES, train, val)


def remarks(config: Ade20k, data: DataSet) -> list[str]:
    """How the number of images differs from the published one."""
    counts = {"training": len(data.train), "validation": len(data.val)}
    return [
        f"{config.root}: {split} has {count:,} images, the published data set {IMAGES[split]:,}"
        for split, count in counts.items()
        if count != IMAGES[split]
    ]
