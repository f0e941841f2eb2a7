"""Seeds derived from names, so that no two uses of randomness share a stream and none depends on call order."""

import hashlib

SEEDS = 1 << 63
"""How many seeds there are: they are less than this."""


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a pure function of `parts`, such as `(run seed, "augment", step, position)`."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
