"""Replay against the method, pixel by pixel in float64."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eircli.common.types import IGNORE
from eircli.memory import fusion, replay
from eircli.memory.decoded import Instances
from eircli.memory.replay import Draws, Fillers
from tests import reference

OLD, NEW = 4, 2
K = 1 + OLD + NEW
SIDE, CROP, PASTES = 8, 19, 3


@dataclass
class Scene:
    """Random images, labels and a bank in which old channel 3 has no instance."""

    images: torch.Tensor
    labels: torch.Tensor
    teacher_logits: torch.Tensor
    rgb: list[np.ndarray]
    masks: list[np.ndarray]
    channels: list[int]
    instances: Instances
    draws: Draws


def scene(seed: int, n: int = 3, hard: bool = False, scale: replay.Scale = "slot") -> Scene:
    generator = np.random.default_rng(seed)
    labels = generator.choice([0, 0, 0, OLD + 1, OLD + 2, 2, IGNORE], (n, 4, 4)).repeat(5, 1).repeat(5, 2)[:, :CROP, :CROP]
    teacher = generator.normal(0, 2, (n, 1 + OLD, 4, 4)).repeat(5, 2).repeat(5, 3)[..., :CROP, :CROP]
    channels = [1, 1, 2, 4, 4, 4]
    sizes = generator.integers(1, 14, (len(channels), 2))
    rgb = [generator.integers(0, 256, (h, w, 3)).astype(np.uint8) for h, w in sizes]
    masks = [generator.random((h, w)) < 0.7 for h, w in sizes]
    instance_count = torch.tensor([channels.count(c) for c in range(1 + OLD)])
    area = torch.from_numpy(sizes.prod(axis=1))
    instances = Instances(
        pixels=torch.from_numpy(np.concatenate([np.dstack([r, m]).reshape(-1, 4) for r, m in zip(rgb, masks, strict=True)])),
        start=area.cumsum(0) - area,
        height=torch.from_numpy(sizes[:, 0]),
        width=torch.from_numpy(sizes[:, 1]),
        first=instance_count.cumsum(0) - instance_count,
        instance_count=instance_count,
        nonempty=torch.tensor(sorted(set(channels))),
    )
    draws = replay.draw(generator, n, PASTES, 0.5, None if hard else (1.0, 1.0), scale)
    images = torch.from_numpy(generator.uniform(0, 255, (n, 3, CROP, CROP))).float()
    return Scene(
        images,
        torch.from_numpy(labels.astype(np.uint8)),
        torch.from_numpy(teacher).float(),
        rgb,
        masks,
        channels,
        instances,
        draws,
    )


def seen(s: Scene, threshold: float) -> torch.Tensor:
    best, channel = s.teacher_logits.max(dim=1)
    return replay.pseudo_labels(s.labels, best, channel.to(torch.uint8), threshold)


def placed(s: Scene, fillers: Fillers) -> replay.Pastes:
    potential = replay.potential_classes(s.labels, seen(s, 0.7), OLD, PASTES)
    return replay.place(potential, replay.select_slots(s.labels, SIDE, PASTES), s.instances, s.draws, fillers, 3)


seeds = st.integers(0, 10_000)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, threshold=st.sampled_from([0.0, 0.5, 0.7, 0.95]))
def test_pseudo_labels(seed: int, threshold: float) -> None:
    s = scene(seed)
    expected = reference.pseudo_labels(s.labels.numpy(), s.teacher_logits.double().numpy(), threshold)
    np.testing.assert_array_equal(seen(s, threshold), expected)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, limit=st.integers(1, 6))
def test_potential_classes(seed: int, limit: int) -> None:
    s = scene(seed)
    combined = seen(s, 0.6)
    found = replay.potential_classes(s.labels, combined, OLD, limit)
    assert found.shape == (3, limit)
    for row, label, both in zip(found.tolist(), s.labels.numpy(), combined.numpy(), strict=True):
        assert [channel for channel in row if channel] == reference.potential_classes(label, both, limit)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, side=st.integers(1, CROP), limit=st.integers(1, 6))
def test_slots(seed: int, side: int, limit: int) -> None:
    s = scene(seed)
    found = replay.select_slots(s.labels, side, limit)
    for corners, label in zip(found.tolist(), s.labels.numpy(), strict=True):
        assert [tuple(corner) for corner in corners] == reference.slots(label, side, limit)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, side=st.integers(1, CROP), limit=st.integers(1, 6))
def test_slots_count_background_by_how_unseen_it_is(seed: int, side: int, limit: int) -> None:
    """Eighths, so that sums are exact."""
    s = scene(seed)
    unseen = np.random.default_rng(seed).integers(0, 9, s.labels.shape) / 8
    found = replay.select_slots(s.labels, side, limit, torch.from_numpy(unseen).float())
    for corners, label, counts in zip(found.tolist(), s.labels.numpy(), unseen, strict=True):
        value: dict[tuple[int, int], float] = {}
        for row, column in np.ndindex(CROP // side * side, CROP // side * side):
            corner = (row // side * side, column // side * side)
            value[corner] = value.get(corner, 0) + (counts[row, column] if label[row, column] == 0 else 0)
        ranked = sorted(value, key=lambda corner: (-value[corner], corner))
        assert [tuple(corner) for corner in corners] == ranked[:limit]


@settings(max_examples=40, deadline=None)
@given(
    seed=seeds,
    fillers=st.sampled_from(["best-slot", "spread", "none"]),
    below=st.integers(0, 3),
    hard=st.booleans(),
    native=st.booleans(),
    spares=st.booleans(),
    feather=st.sampled_from([0, 0, 1, 2]),
)
def test_place_and_fuse(seed: int, fillers: Fillers, below: int, hard: bool, native: bool, spares: bool, feather: int) -> None:
    s = scene(seed, hard=hard, scale="native" if native else "slot")
    spared = (s.labels > OLD) & (s.labels != IGNORE) if spares else None
    combined = seen(s, 0.7)
    potential = replay.potential_classes(s.labels, combined, OLD, PASTES)
    slots = replay.select_slots(combined, SIDE, PASTES)
    pastes = replay.place(potential, slots, s.instances, s.draws, fillers, below)
    images, soft = fusion.fuse(s.images, combined, s.instances, pastes, s.draws, SIDE, spared, feather)
    nonempty = sorted(set(s.channels))
    for n in range(len(images)):
        wanted = [channel for channel in potential[n].tolist() if channel]
        drawn = [nonempty[int(u * len(nonempty))] for u in s.draws.filler[n].tolist()][len(wanted) :]
        corners = [(top, left) for top, left in slots[n].tolist()]
        plan = reference.plan(wanted, corners, [1, 2, 3, 4], PASTES, fillers, below, drawn, set(nonempty))
        active = pastes.active[n].tolist()
        assert [int(c) for c, on in zip(pastes.channel[n], active, strict=True) if on] == [channel for channel, _ in plan]
        image, dense = s.images[n].double().numpy(), one_hot(combined[n].numpy())
        places = [p for p in range(PASTES) if active[p]]
        for p, (channel, corner) in zip(places, plan, strict=True):
            own = [i for i, c in enumerate(s.channels) if c == channel]
            i = own[int(float(s.draws.instance[n, p]) * len(own))]
            lam, flip = float(s.draws.lam[n, p]), bool(s.draws.flip[n, p])
            growth, kept = float(s.draws.scale[n, p]), None if spared is None else spared[n].numpy()
            assert 0.5 <= growth <= 1 if native else growth == float("inf")
            how = (SIDE, lam, flip, growth, kept, feather)
            image, dense = reference.paste(image, dense, s.rgb[i], s.masks[i], channel, corner, *how)
        np.testing.assert_allclose(images[n].numpy(), image, atol=1e-3)
        ours = torch.zeros(K, CROP, CROP).scatter_add_(0, soft.channels[n].long(), soft.weights[n]).numpy()
        valid = soft.valid[n].numpy()
        np.testing.assert_array_equal(valid, s.labels[n].numpy() != IGNORE)
        np.testing.assert_allclose(ours[:, valid], dense[:, valid], atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, fillers=st.sampled_from(["best-slot", "none"]))
def test_slots_changed_all_at_once_get_the_same_bits(seed: int, fillers: Fillers) -> None:
    s = scene(seed)
    pastes = placed(s, fillers)
    images, soft = fusion.fuse(s.images, s.labels, s.instances, pastes, s.draws, SIDE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fusion, "blend_views", fusion.blend_gathered)
        same_images, same_soft = fusion.fuse(s.images, s.labels, s.instances, pastes, s.draws, SIDE)
    assert torch.equal(images, same_images)
    assert all(torch.equal(one, other) for one, other in zip(soft, same_soft, strict=True))
    assert not torch.equal(images, s.images) or not pastes.active.any()


@settings(max_examples=20, deadline=None)
@given(seed=seeds, fillers=st.sampled_from(["best-slot", "none"]))
def test_fetched_instances_give_the_same_bits(seed: int, fillers: Fillers) -> None:
    s = scene(seed)
    pastes = placed(s, fillers)
    instances, moved = fusion.fetch(s.instances, pastes)
    assert len(instances.height) == pastes.active.numel()
    assert len(instances.pixels) == sum(
        len(s.masks[i].ravel()) if on else 1
        for i, on in zip(pastes.instance.flatten().tolist(), pastes.active.flatten().tolist(), strict=True)
    )
    images, soft = fusion.fuse(s.images, s.labels, s.instances, pastes, s.draws, SIDE)
    same_images, same_soft = fusion.fuse(s.images, s.labels, instances, moved, s.draws, SIDE)
    assert torch.equal(images, same_images)
    assert all(torch.equal(a, b) for a, b in zip(soft, same_soft, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("far", [False, True])
def test_a_bank_on_the_gpu_makes_nobody_wait(far: bool) -> None:
    s, gpu = scene(0), torch.device("cuda")
    potential = torch.tensor([[4, 1, 0]] * 3)
    slots = replay.select_slots(s.labels, SIDE, PASTES)
    pastes = replay.place(potential, slots, s.instances, s.draws, "best-slot", 3)
    expected, _ = fusion.fuse(s.images, s.labels, s.instances, pastes, s.draws, SIDE)
    instances = Instances(*(tensor.to(gpu) for tensor in s.instances))
    if far:
        instances = instances._replace(pixels=s.instances.pixels)
    images, labels, potential, slots = (tensor.to(gpu) for tensor in (s.images, s.labels, potential, slots))
    torch.cuda.set_sync_debug_mode("default" if far else "error")
    try:
        draws = s.draws.to(gpu)
        pastes = replay.place(potential, slots, instances, draws, "best-slot", 3)
        mixed, _ = fusion.fuse(images, labels, instances, pastes, draws, SIDE)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(mixed.cpu(), expected)


def one_hot(label: np.ndarray) -> np.ndarray:
    dense = np.zeros((K, *label.shape))
    for channel in range(K):
        dense[channel] = label == channel
    return dense


def test_hard_paste_replaces() -> None:
    s = scene(1, hard=True)
    assert (s.draws.lam == 1).all()


def test_no_old_class_in_sight_and_no_fillers_leave_everything_as_it_is() -> None:
    s = scene(2)
    potential = torch.zeros(3, PASTES, dtype=torch.int64)
    pastes = replay.place(potential, replay.select_slots(s.labels, SIDE, PASTES), s.instances, s.draws, "none", 2)
    images, soft = fusion.fuse(s.images, s.labels, s.instances, pastes, s.draws, SIDE)
    assert torch.equal(images, s.images)
    assert (soft.weights[:, 0] == 1).all()
    assert not soft.weights[:, 1:].any()


def test_a_class_without_instances_is_skipped() -> None:
    s = scene(3)
    potential = torch.tensor([[3, 1, 0]] * 3)
    pastes = replay.place(potential, replay.select_slots(s.labels, SIDE, PASTES), s.instances, s.draws, "none", 0)
    assert pastes.active.tolist() == [[False, True, False]] * 3


def test_draws_are_a_function_of_the_generator() -> None:
    one, two = (replay.draw(np.random.default_rng(5), 4, 3, 0.5, (2.0, 5.0)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    many = replay.draw(np.random.default_rng(5), 4000, 3, 0.25, (2.0, 5.0))
    assert float(many.lam.mean()) == pytest.approx(2 / 7, abs=0.01)
    assert float(many.flip.float().mean()) == pytest.approx(0.25, abs=0.02)


def test_every_instance_of_a_class_is_as_likely() -> None:
    s = scene(4)
    potential = torch.full((6000, 1), 4)
    draws = replay.draw(np.random.default_rng(0), 6000, 1, 0.5, None)
    slots = torch.zeros(6000, 1, 2, dtype=torch.int64)
    chosen = replay.place(potential, slots, s.instances, draws, "none", 0).instance.flatten()
    counts = torch.bincount(chosen, minlength=6)
    assert counts[:3].sum() == 0
    assert counts[3:].min() > 1850
