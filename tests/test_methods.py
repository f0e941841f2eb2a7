"""Methods as the loop sees them: what they prepare, and which losses they name."""

import math
from dataclasses import replace
from statistics import median
from typing import cast

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from eircli.common.types import IGNORE, Batch
from eircli.config import manifest
from eircli.config import methods as method_settings
from eircli.config.replay import EirSettings
from eircli.config.section import MethodSettings
from eircli.memory.decoded import Instances
from eircli.methods import METHODS, build_method
from eircli.methods.base import Context
from eircli.methods.eir import Eir, surely_unseen
from eircli.model.deeplab import DeepLab
from eircli.model.tiles import best_channels
from tests import reference

TINY = manifest.Model(backbone="tiny", weights="none", aspp_channels=8, aspp_rates=(1,))
OLD, NEW = 2, 1


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 3, IGNORE, 1], dtype=torch.uint8).repeat_interleave(8).expand(2, 32, 32)
    return Batch(
        torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator),
        labels.contiguous(),
        seed=1,
        replayed=torch.tensor([False, True]),
    )


def context(teacher: bool = True) -> Context:
    torch.manual_seed(0)
    return Context(OLD, NEW, DeepLab(TINY, [OLD]).frozen_copy() if teacher else None)


def eir(**changes: object) -> EirSettings:
    return EirSettings.model_validate({"name": "eir", "fusion": False, "standalone_replay": False, **changes})


@pytest.mark.parametrize(
    ("region", "labels"),
    [("outside-new", {0, 1}), ("inside-new", {3}), ("all", {0, 1, 3})],
    ids=["outside-new", "inside-new", "all"],
)
def test_regions_of_distillation_leave_ignored_pixels_out(region: str, labels: set[int]) -> None:
    method = build_method(eir(distill={"region": region}), context())
    prepared = method.prepare(batch())
    assert prepared.region is not None
    assert set(prepared.labels[prepared.region].tolist()) == labels
    assert all(prepared.region[prepared.labels == label].all() for label in labels)


def test_pseudo_labels_become_targets_of_background_alone() -> None:
    plain, completed = (build_method(eir(pseudo_labels=on, threshold=0.0), context()).prepare(batch()) for on in (False, True))
    assert plain.targets is not None
    assert completed.targets is not None
    changed = plain.targets.channels[:, 0] != completed.targets.channels[:, 0]
    assert changed.any()
    assert set(batch().labels[changed].tolist()) == {0}
    assert completed.targets.channels[:, 0][changed].max() <= OLD
    assert not completed.targets.valid[batch().labels == IGNORE].any()


def test_the_teacher_sees_the_prepared_images_and_none_is_asked_without_distillation() -> None:
    method = build_method(eir(), context())
    prepared = method.prepare(batch())
    teacher = method.context.teacher if isinstance(method, Eir) else None
    assert teacher is not None
    assert prepared.teacher_logits is not None
    torch.testing.assert_close(prepared.teacher_logits, teacher(prepared.images))
    assert build_method(eir(distill={"weight": 0}), context()).prepare(batch()).teacher_logits is None


def test_the_weight_of_distillation_is_a_factor() -> None:
    model = DeepLab(TINY, [OLD, NEW]).eval()
    found = []
    for weight in (1.0, 5.0):
        method = build_method(eir(distill={"weight": weight}), context())
        found.append({key: float(loss.detach()) for key, loss in method.losses(model, method.prepare(batch())).items()})
    assert found[1]["rskd"] == pytest.approx(5 * found[0]["rskd"])
    assert found[1]["bce"] == found[0]["bce"]


@pytest.mark.parametrize("surroundings", ["background", "ignore", "pseudo-labels"])
@pytest.mark.parametrize("fusion", [False, True])
def test_the_surroundings_of_stand_alone_samples_are_treated_as_told(surroundings: str, fusion: bool) -> None:
    """The second image is from the memory: its background is known, unknown, or known where the teacher is sure."""
    given = replace(context(), memory=one_instance())
    assert given.teacher is not None
    best = best_channels(given.teacher(batch().images), (32, 32))[0][1, :8]
    told = eir(surroundings=surroundings, fusion=fusion, slot=8, threshold=float(best.median().sigmoid()))
    method = build_method(told, given)
    assert isinstance(method, Eir)
    prepared, labels = method.prepare(batch()), batch().labels
    assert prepared.targets is not None
    assert prepared.region is not None
    pseudo = method.add_pseudo_labels(labels, method.seen(method.teacher(batch().images), batch()))
    assert 0 < int((pseudo[1] != labels[1]).sum()) < int((labels[1] == 0).sum()), "some are sure"
    for image, row, column in np.ndindex(2, 32, 32):
        label = int(labels[image, row, column])
        unknown = {"background": False, "ignore": True, "pseudo-labels": int(pseudo[image, row, column]) == 0}[surroundings]
        known = label != IGNORE and not (image == 1 and label == 0 and unknown)
        assert bool(prepared.targets.valid[image, row, column]) == known
        assert bool(prepared.region[image, row, column]) == (label in (0, 1)), "distilled in any case"
        counted = label != IGNORE and not (image == 1 and label == 0 and surroundings == "ignore")
        assert bool(method.counted_pixels(batch())[image, row, column]) == counted


def test_median_thresholds_are_each_class_s_own() -> None:
    """Half of the background pixels that the teacher gives a class are pseudo-labelled; by a loop over pixels."""
    given = context()
    assert given.teacher is not None
    with torch.no_grad():
        for number, classifier in enumerate(given.teacher.classifiers):
            cast(torch.nn.Conv2d, classifier).weight.normal_(std=20, generator=torch.Generator().manual_seed(number))
    method = build_method(eir(thresholds="median", threshold=1.0), given)
    assert isinstance(method, Eir)
    batches = [replace(batch(), labels=batch().labels.roll(8 * shift, dims=2)) for shift in range(3)]
    method.begin(DeepLab(TINY, [OLD]), lambda: iter(batches))
    sigmoids: dict[int, list[float]] = {channel: [] for channel in range(1 + OLD)}
    for one in batches:
        best, channel = method.seen(method.teacher(one.images.float()), one)
        for place in np.ndindex(2, 32, 32):
            if one.labels[place] == 0:
                sigmoids[int(channel[place])].append(float(best[place].sigmoid()))
    assert sum(map(bool, sigmoids.values())) > 1, "the teacher sees several classes"
    assert isinstance(method.threshold, torch.Tensor)
    for number, found in enumerate(method.threshold.tolist()):
        assert found == pytest.approx(median(sigmoids[number] or [0.001]), abs=2e-3)
    labels = batches[0].labels
    pseudo = method.add_pseudo_labels(labels, method.seen(method.teacher(batches[0].images.float()), batches[0]))
    best, seen = method.seen(method.teacher(batches[0].images.float()), batches[0])
    for place in np.ndindex(2, 32, 32):
        sure = float(best[place].sigmoid()) >= method.threshold.tolist()[int(seen[place])]
        expected = seen[place] if labels[place] == 0 and sure else labels[place]
        assert pseudo[place] == expected


def test_median_thresholds_are_no_higher_than_the_threshold() -> None:
    method = build_method(eir(thresholds="median", threshold=0.2), context())
    assert isinstance(method, Eir)
    method.begin(DeepLab(TINY, [OLD]), lambda: iter([batch()]))
    assert isinstance(method.threshold, torch.Tensor)
    assert method.threshold.max() == pytest.approx(0.2)


def test_background_counts_by_what_the_old_model_sees_there() -> None:
    best, channel = torch.tensor([[[0.0, 2.0, -1.0]]]), torch.tensor([[[0, 1, 2]]], dtype=torch.uint8)
    expected = [1, 1 - 1 / (1 + math.exp(-2)), 1 - 1 / (1 + math.exp(1))]
    torch.testing.assert_close(surely_unseen(best, channel), torch.tensor([[expected]]))


def one_instance() -> Instances:
    """Nine pixels of class 1."""
    pixels = torch.full((9, 4), 1, dtype=torch.uint8)
    nothing, side, counts = torch.tensor([0]), torch.tensor([3]), torch.tensor([0, 1, 0])
    return Instances(pixels, nothing, side, side, torch.tensor([0, 0, 1]), counts, torch.tensor([1]))


def test_the_surroundings_left_out_do_not_enter_the_mean() -> None:
    """The cross-entropy over what is left, by a loop over pixels."""
    model, method = DeepLab(TINY, [OLD, NEW]).eval(), build_method(eir(surroundings="ignore", pseudo_labels=False), context())
    losses = method.losses(model, method.prepare(batch()))
    labels = batch().labels.numpy()
    with torch.no_grad():
        logits = torch.nn.functional.interpolate(model(batch().images), (32, 32), mode="bilinear").double().numpy()
    targets = np.stack([labels == channel for channel in range(1 + OLD + NEW)], axis=1).astype(float)
    known = labels != IGNORE
    known[1] &= labels[1] != 0
    assert float(losses["bce"].detach()) == pytest.approx(reference.summed_bce(logits, targets, known, 1.0), rel=1e-5)


def test_pseudo_labels_of_surroundings_must_be_made() -> None:
    with pytest.raises(ValueError, match="surroundings: pseudo-labels needs pseudo_labels: true"):
        eir(surroundings="pseudo-labels", pseudo_labels=False)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("weight", [None, 2.0])
def test_in_a_shared_base_step_every_method_learns_the_labels_as_they_are(name: str, weight: float | None) -> None:
    """Summed binary cross-entropy against the labels, by a loop over pixels."""
    settings = TypeAdapter(method_settings.MethodConfig).validate_python(
        {"name": name, "base_positive_weight": weight, "positive_weight": 7.0}
    )
    assert isinstance(settings, MethodSettings)
    model = DeepLab(TINY, [OLD, NEW]).eval()
    method = build_method(settings, context(teacher=False))
    losses = method.losses(model, method.prepare(batch()))
    labels = batch().labels.numpy()
    with torch.no_grad():
        logits = torch.nn.functional.interpolate(model(batch().images), (32, 32), mode="bilinear").double().numpy()
    targets = np.stack([labels == channel for channel in range(1 + OLD + NEW)], axis=1).astype(float)
    expected = reference.summed_bce(logits, targets, labels != IGNORE, weight or 1.0)
    assert {key: float(loss.detach()) for key, loss in losses.items()} == {"bce": pytest.approx(expected, rel=1e-5)}


@pytest.mark.parametrize("name", ["dft", "lwf", "ilt", "mib", "mbs", "plop", "dkd"])
def test_a_base_step_of_its_own_is_the_methods(name: str) -> None:
    settings = TypeAdapter(method_settings.MethodConfig).validate_python({"name": name, "base_step": "own"})
    method = build_method(settings, Context(0, OLD + NEW, None))
    assert type(method) is METHODS[name]
    assert "bce" not in method.losses(DeepLab(TINY, [OLD + NEW]).eval(), method.prepare(batch()))


def test_decomposed_old_channels_learn_no_pseudo_labels_and_follow_the_teacher_where_no_label_tells() -> None:
    """At the teacher's own weights nothing pulls at an old channel but labels; elsewhere only the imitation moves it."""
    given = context()
    assert given.teacher is not None
    model = given.teacher.frozen_copy()
    model.add_classes(NEW)
    model.requires_grad_(True)
    method = build_method(eir(threshold=0.0, distill={"loss": "decomposed", "reasoning_weight": 2.0}), given)
    prepared = method.prepare(batch())
    assert prepared.targets is not None
    assert torch.equal(prepared.targets.channels[:, 0][prepared.targets.valid], batch().labels[prepared.targets.valid])
    losses = method.losses(model, prepared)
    assert losses.keys() == {"bce", "imitation", "reasoning"}
    for name in ("imitation", "reasoning"):
        gradients = torch.autograd.grad(losses[name], list(model.parameters()), retain_graph=True, allow_unused=True)
        assert max(float(g.abs().max()) for g in gradients if g is not None) < 1e-5, "the student is the teacher still"
    old = cast(torch.nn.Conv2d, model.classifiers[1]).weight
    (pulled,) = torch.autograd.grad(losses["bce"], [old], retain_graph=True)
    assert pulled.any(), "a new class's label is truth about old classes"
    everywhere = build_method(eir(distill={"loss": "decomposed", "region": "all"}), given)
    labels = torch.where(batch().labels == 255, 0, batch().labels)
    bce = everywhere.losses(model, everywhere.prepare(batch().with_(labels=torch.where(labels <= OLD, 0, labels))))["bce"]
    assert not torch.autograd.grad(bce, [old])[0].any(), "without an old class's label nothing is told"


def test_pastes_spare_new_classes_where_asked() -> None:
    given = replace(context(), memory=one_instance())
    new = (batch().labels > OLD) & (batch().labels != 255)
    covered = []
    for over in (True, False):
        told = eir(
            fusion=True, slot=8, threshold=0.0, paste="hard", paste_over_new=over, fillers="spread", fillers_below=9, pastes=16
        )
        prepared = build_method(told, given).prepare(batch())
        assert prepared.targets is not None
        changed = (prepared.images != batch().images.float()).any(dim=1)
        assert changed.any()
        covered.append(int((changed & new).sum()))
    assert covered[0] > 0
    assert covered[1] == 0


def test_outside_its_label_a_replayed_class_is_imitated_as_absent() -> None:
    """The second image is from the memory; where it shows class 1, the label says so, and elsewhere class 1 is not there."""
    given, labels = context(), batch().labels.clone()
    assert given.teacher is not None
    labels[1, :4] = 1
    seen = batch().with_(labels=labels, replayed=torch.tensor([False, True]))
    found = [
        build_method(eir(distill={"loss": "decomposed", "extents": on}), given).prepare(seen).teacher_logits
        for on in (False, True)
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert torch.equal(found[0][0], found[1][0])
    shown = sorted({int(value) for value in labels[1].unique()} & set(range(1, 1 + OLD)))
    assert 1 in shown
    for channel in range(1 + OLD):
        told = found[1][1, channel]
        assert bool((told.sigmoid() < 1e-9).all()) if channel in shown else torch.equal(told, found[0][1, channel])
