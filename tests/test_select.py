"""Which candidates are kept: the rules, budgets in count and bytes, whole images, prototypes."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from eircli.common.errors import UserError
from eircli.common.types import Sample, StoredImage, UInt8Array
from eircli.config.budget import parse_budget
from eircli.memory.bank import Bank, write_bank
from eircli.memory.encoded import encode
from eircli.memory.harvest import WHOLE_CLASS, Candidate, Origin, image_candidates, store_image
from eircli.memory.prototypes import Prototypes, gather, merge, on_grid, sample
from eircli.memory.select import RULES, Pool, share_out
from eircli.memory.standalone import StoredImages
from eircli.memory.tensor_file import read_tensors, write_tensors
from tests import reference_rivals as slow


def unit(seed: int, n: int, channels: int = 3) -> NDArray[np.float64]:
    drawn = np.random.default_rng(seed).normal(size=(n, channels))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def pool(seed: int, n: int) -> Pool:
    generator = np.random.default_rng(seed)
    return Pool(generator.integers(1, 50, n).astype(float), generator.random(n), unit(seed, n))


@given(seed=st.integers(0, 100), n=st.integers(0, 9), rule=st.sampled_from(sorted(RULES)))
def test_a_rule_ranks_every_candidate_once_and_reproducibly(seed: int, n: int, rule: str) -> None:
    orders = [RULES[rule](pool(seed, n), np.random.default_rng(seed)).tolist() for _ in range(2)]
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == list(range(n))


@given(seed=st.integers(0, 100), n=st.integers(1, 9))
def test_largest_confident_and_diverse_are_what_they_say(seed: int, n: int) -> None:
    candidates, generator = pool(seed, n), np.random.default_rng(0)
    assert RULES["largest"](candidates, generator).tolist() == sorted(range(n), key=lambda i: -candidates.area[i])
    assert RULES["confident"](candidates, generator).tolist() == sorted(range(n), key=lambda i: -candidates.confidence[i])
    if n != 2:  # two are equally near to their mean: rounding says which comes first
        assert RULES["diverse"](candidates, generator).tolist() == slow.farthest_first(candidates.features)


def test_random_is_uniform() -> None:
    generator = np.random.default_rng(0)
    first = [int(RULES["random"](pool(0, 4), generator)[0]) for _ in range(4000)]
    assert np.bincount(first) / 4000 == pytest.approx(np.full(4, 0.25), abs=0.03)


@settings(max_examples=60)
@given(
    supply=st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(1, 40), max_size=30), min_size=1),
    budget=st.integers(1, 300),
)
def test_a_budget_in_bytes_is_kept_and_filled(supply: dict[str, list[int]], budget: int) -> None:
    sizes = {(name, i): size for name, items in supply.items() for i, size in enumerate(items)}
    ranked = {name: list(range(len(items))) for name, items in supply.items()}
    kept = share_out(ranked, budget, lambda name, item: sizes[name, item])
    assert slow.share_out_bytes_ok(kept, ranked, sizes, budget)


def test_items_of_one_size_are_shared_out_evenly() -> None:
    kept = share_out({"a": range(9), "b": range(9), "c": range(1)}, 70, lambda name, item: 10)
    assert {name: len(items) for name, items in kept.items()} == {"a": 3, "b": 3, "c": 1}


@pytest.mark.parametrize(
    ("text", "amount", "unit_"),
    [(60, 60, "exemplars"), ("2MB", 2_000_000, "bytes"), ("1.5MiB", 1_572_864, "bytes"), ("500 kB", 500_000, "bytes")],
)
def test_budgets(text: int | str, amount: int, unit_: str) -> None:
    assert tuple(parse_budget(text)) == (amount, unit_)


class Images:
    """Three images; the second holds two classes."""

    labels = (np.array([[1, 1], [0, 255]]), np.array([[1, 2], [2, 0]]), np.array([[1, 0], [0, 0]]))

    def __len__(self) -> int:
        return 3

    def load(self, index: int) -> Sample:
        return Sample(np.full((2, 2, 3), 40 * index, np.uint8), self.labels[index].astype(np.uint8))


def test_an_image_is_a_candidate_of_each_of_its_classes() -> None:
    found = [c for i in range(3) for c in image_candidates(Images().load(i).label, [1, 2], i)]
    assert found == [
        Candidate(1, 0, WHOLE_CLASS, 2),
        Candidate(1, 1, WHOLE_CLASS, 1),
        Candidate(2, 1, WHOLE_CLASS, 2),
        Candidate(1, 2, WHOLE_CLASS, 1),
    ]


def test_an_image_of_several_classes_is_kept_once_and_starves_none_of_them() -> None:
    """Every image of the common class also holds a rare one: it still gets its share."""
    ranked = {"rare": list(range(5)), "other": list(range(5, 10)), "common": list(range(10))}
    kept = share_out(ranked, 9, identity=lambda name, item: item)
    assert {name: len(items) for name, items in kept.items()} == {"common": 3, "rare": 3, "other": 3}
    every = [item for items in kept.values() for item in items]
    assert len(every) == len(set(every))
    assert len([i for items in share_out(ranked, 99, identity=lambda name, item: item).values() for i in items]) == 10


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_a_stored_image_comes_back_with_the_label_it_had(tmp_path: Path, encoding: str) -> None:
    ids = np.arange(256, dtype=np.uint8)
    ids[[1, 2]] = [7, 5]
    stored = store_image(Images().load(1), Origin(5, "bild", 3), ids)
    write_bank(tmp_path / "b.h5", [encode(stored, encoding, 95)], {"kind": "images"})  # type: ignore[arg-type]
    bank = Bank(tmp_path / "b.h5")
    found = bank.load_image(0)
    assert (found.class_id, found.source, found.step, found.area) == (5, "bild", 3, 2)
    np.testing.assert_array_equal(found.label, [[7, 5], [5, 0]])
    assert np.abs(found.image.astype(int) - 40).max() <= 2
    assert bank.facts["kind"] == "images"
    table = np.zeros(256, np.uint8)
    table[[7, 5, 255]] = [1, 2, 255]
    np.testing.assert_array_equal(StoredImages(bank, table).load(0).label, [[1, 2], [2, 0]])


class Current:
    """A step's images: one that is stored too, and another."""

    ids: ClassVar[list[str]] = ["other", "bild"]

    def __len__(self) -> int:
        return 2

    def load(self, index: int) -> Sample:
        raise AssertionError("its label alone is asked for")

    def load_label(self, index: int) -> UInt8Array:
        return np.array([[0, 0], [4, 3]] if index else [[4, 4], [4, 4]], np.uint8)


def test_a_stored_image_shows_a_steps_classes_only_where_it_is_among_its_images(tmp_path: Path) -> None:
    ids = np.arange(256, dtype=np.uint8)
    image = np.full((2, 2, 3), 40, np.uint8)
    label = np.array([[1, 2], [2, 0]], np.uint8)
    records = [encode(StoredImage(image, label, 2, name, 0), "png", 95) for name in ("bild", "gone")]
    write_bank(tmp_path / "b.h5", records, {"kind": "images"})
    samples = StoredImages(Bank(tmp_path / "b.h5"), ids, Current())
    np.testing.assert_array_equal(samples.load(0).label, [[1, 2], [2, 3]])
    np.testing.assert_array_equal(samples.load(1).label, label)
    assert samples.load(0).label.dtype == np.uint8


def test_records_pass_from_bank_to_bank_without_being_coded_again(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    record = encode(StoredImage(noise, noise[..., 0], 3, "x", 0), "jpeg", 60)
    for generation in range(3):
        write_bank(tmp_path / f"{generation}.h5", [record], {})
        record = Bank(tmp_path / f"{generation}.h5").record(0)
    first, last = (Bank(tmp_path / f"{g}.h5").load_image(0).image for g in (0, 2))
    np.testing.assert_array_equal(first, last)
    assert record.size < 20 * 30 * 3 + 5000


def batches(seed: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(3):
        labels = torch.randint(0, 4, (2, 4, 5), generator=generator).to(torch.uint8)
        made.append((torch.rand(2, 6, 4, 5, generator=generator), labels, (labels == 0) & (torch.rand(2, 4, 5) > 0.5)))
    return made


def test_prototypes_are_the_moments_of_a_classs_features() -> None:
    found = gather(batches(0), [1, 3], [11, 13])
    assert found.class_ids.tolist() == [11, 13]
    for k, channel in enumerate((1, 3)):
        vectors = [
            features[n, :, row, column].double().numpy()
            for features, labels, _ in batches(0)
            for n, row, column in np.ndindex(*labels.shape)
            if labels[n, row, column] == channel
        ]
        expected = slow.prototypes(vectors)
        np.testing.assert_allclose(found.direction[k], expected["direction"], rtol=1e-5)
        np.testing.assert_allclose(found.noise[k], expected["noise"], rtol=1e-4)
        assert float(found.norm_mean[k]) == pytest.approx(expected["norm_mean"], rel=1e-5)
        assert float(found.norm_std[k]) == pytest.approx(expected["norm_std"], rel=1e-4)
        assert int(found.cells[k]) == len(vectors)
    with pytest.raises(UserError, match="class 99: too small for a prototype"):
        gather(batches(0), [9], [99])


def test_drawn_features_follow_their_prototypes() -> None:
    prototypes = gather(batches(1), [1, 2], [1, 2])
    drawn = sample(prototypes, torch.tensor([20_000, 10_000]), torch.Generator().manual_seed(0))
    assert drawn.shape == (30_000, 6)
    for k, part in enumerate((drawn[:20_000], drawn[20_000:])):
        expected = prototypes.direction[k] * prototypes.norm_mean[k]
        np.testing.assert_allclose(part.mean(dim=0), expected, atol=0.02)
        spread = prototypes.noise[k].square() * (prototypes.norm_mean[k] ** 2 + prototypes.norm_std[k] ** 2)
        spread += prototypes.direction[k].square() * prototypes.norm_std[k] ** 2
        np.testing.assert_allclose(part.var(dim=0), spread, rtol=0.1)


def test_prototypes_survive_the_file_and_merge(tmp_path: Path) -> None:
    one, two = gather(batches(0), [1, 2], [11, 12]), gather(batches(1), [3], [13])
    write_tensors(tmp_path / "p.h5", "prototypes", one, {"step": 1})
    again = read_tensors(tmp_path / "p.h5", "prototypes", Prototypes)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    merged = merge(again, two, 0.25)
    assert merged.class_ids.tolist() == [11, 12, 13]
    assert torch.equal(merged.noise, torch.cat([one.noise, two.noise]))
    assert float(merged.background) == float(one.background) + 0.75 * float(two.background)
    assert isinstance(merged, Prototypes)
    (tmp_path / "p.h5").write_bytes((tmp_path / "p.h5").read_bytes()[:200])
    for name, message in (("p.h5", "damaged"), ("q.h5", "missing")):
        with pytest.raises(UserError, match=message):
            read_tensors(tmp_path / name, "prototypes", Prototypes)


def test_labels_on_a_grid_are_those_at_the_cells_centres() -> None:
    labels = torch.randint(0, 256, (1, 16, 24), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert torch.equal(on_grid(labels, (4, 6)), labels[:, 2::4, 2::4])
