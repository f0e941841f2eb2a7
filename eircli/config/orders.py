"""Class orders by name, and shuffled ones by seed."""

from __future__ import annotations

import numpy as np

from eircli.common.errors import UserError
from eircli.common.seeds import derive_seed

Order = tuple[int, ...]

# fmt: off
NAMED_ORDERS: dict[str, Order] = {
    "voc-15-1-b": (12, 9, 20, 7, 15, 8, 14, 16, 5, 19, 4, 1, 13, 2, 11, 17, 3, 6, 18, 10),
    "voc-15-1-c": (13, 19, 15, 17, 9, 8, 5, 20, 4, 3, 10, 11, 18, 16, 7, 12, 14, 6, 1, 2),
    "voc-15-1-d": (15, 3, 2, 12, 14, 18, 20, 16, 11, 1, 19, 8, 10, 7, 17, 6, 5, 13, 9, 4),
    "voc-15-1-e": (7, 5, 3, 9, 13, 12, 14, 19, 10, 2, 1, 4, 16, 8, 17, 15, 18, 6, 11, 20),
    "voc-15-1-f": (7, 13, 5, 11, 9, 2, 15, 12, 14, 3, 20, 1, 16, 4, 18, 8, 6, 10, 19, 17),
    "voc-15-1-g": (7, 5, 9, 1, 15, 18, 14, 3, 20, 10, 4, 19, 11, 17, 16, 12, 8, 6, 2, 13),
    "voc-15-1-h": (12, 9, 19, 6, 4, 10, 5, 18, 14, 15, 16, 3, 8, 7, 11, 13, 2, 20, 17, 1),
    "voc-15-1-i": (13, 10, 15, 8, 7, 19, 4, 3, 16, 12, 14, 11, 5, 20, 6, 2, 18, 9, 17, 1),
    "voc-15-1-j": (1, 14, 9, 5, 2, 15, 8, 20, 6, 16, 18, 7, 11, 10, 19, 3, 4, 17, 12, 13),
    "voc-15-1-k": (16, 13, 1, 11, 12, 18, 6, 14, 5, 3, 7, 9, 20, 19, 15, 4, 2, 10, 8, 17),
    "voc-15-1-l": (10, 7, 6, 19, 16, 8, 17, 1, 14, 4, 9, 3, 15, 11, 12, 2, 18, 20, 13, 5),
    "voc-15-1-m": (18, 4, 14, 17, 12, 10, 7, 3, 9, 1, 8, 15, 6, 13, 2, 5, 11, 20, 16, 19),
    "voc-15-1-n": (5, 4, 13, 18, 14, 10, 19, 15, 7, 9, 3, 2, 8, 16, 20, 1, 12, 11, 6, 17),
    "voc-15-1-o": (9, 12, 13, 18, 7, 1, 15, 17, 10, 8, 4, 5, 20, 16, 6, 14, 19, 11, 2, 3),
    "voc-15-1-p": (9, 12, 13, 18, 2, 11, 15, 17, 10, 8, 4, 5, 20, 16, 6, 14, 19, 1, 7, 3),
    "voc-15-1-q": (3, 14, 13, 18, 2, 11, 15, 17, 10, 8, 4, 5, 20, 16, 6, 12, 19, 1, 7, 9),
    "voc-15-1-r": (3, 14, 13, 1, 2, 11, 15, 17, 7, 8, 4, 5, 9, 16, 19, 12, 6, 18, 10, 20),
    "voc-15-1-s": (3, 14, 6, 1, 2, 11, 12, 17, 7, 20, 4, 5, 9, 16, 19, 15, 13, 18, 10, 8),
    "voc-15-1-t": (3, 15, 13, 1, 2, 11, 18, 17, 7, 20, 8, 5, 9, 16, 19, 14, 6, 12, 10, 4),
    "voc-15-1-u": (3, 15, 13, 14, 6, 11, 18, 17, 7, 20, 8, 4, 9, 16, 10, 1, 2, 12, 19, 5),
    "voc-15-1-v": (1, 2, 12, 14, 6, 19, 18, 17, 5, 20, 8, 4, 9, 16, 10, 3, 15, 13, 11, 7),
    "voc-15-1-w": (1, 2, 12, 14, 13, 19, 18, 7, 11, 20, 8, 4, 9, 16, 10, 3, 15, 6, 5, 17),
}
# fmt: on
"""The 22 commonly used shuffled orders of VOC 15-1, class ids in the order learned. Source: the schedules published
with DKD (Baek et al., NeurIPS 2022)."""


def class_order(spec: Order | str | None, class_count: int) -> Order | None:
    """The order of class ids that `protocol.order` means; None for the ascending one.

    Raises:
        UserError: an unknown name, or one for another number of classes.
    """
    if not isinstance(spec, str):
        return spec
    kind, _, seed = spec.partition(":")
    if kind == "seed" and seed.isdecimal():
        generator = np.random.default_rng(derive_seed(int(seed), "class order"))
        return tuple(int(class_id) for class_id in generator.permutation(class_count) + 1)
    if spec not in NAMED_ORDERS:
        raise UserError(
            f"protocol.order: '{spec}' is unknown; give a list of class ids, seed:N, or a name from voc-15-1-b to voc-15-1-w"
        )
    if class_count != len(NAMED_ORDERS[spec]):
        raise UserError(
            f"protocol.order: {spec} is an order of {len(NAMED_ORDERS[spec])} classes, the data set has {class_count}"
        )
    return NAMED_ORDERS[spec]
