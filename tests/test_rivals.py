"""The rivals' losses against loops over pixels in float64, and what each method's hooks promise."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor
from torch.nn.functional import interpolate

from eircli.common.types import IGNORE, Batch
from eircli.config import manifest
from eircli.config import methods as method_settings
from eircli.memory.prototypes import Prototypes, sample
from eircli.methods import build_method
from eircli.methods.base import Context, Method
from eircli.methods.dkd import Dkd
from eircli.methods.ilt import Ilt
from eircli.methods.losses import (
    cross_entropy,
    imitation_bce,
    new_classes_bce,
    plain_distillation,
    reasoning_scores,
    rskd,
    unbiased_cross_entropy,
)
from eircli.methods.pixel_mean import PixelMean
from eircli.methods.plop import Plop, entropy, gated_pseudo_labels, local_pod, released_medians
from eircli.methods.ssul import Ssul
from eircli.methods.star import Star
from eircli.model.deeplab import DeepLab
from tests import reference
from tests import reference_rivals as slow

OLD, NEW = 2, 2
K = 1 + OLD + NEW
TINY = manifest.Model(backbone="tiny", weights="none", aspp_channels=8, aspp_rates=(1,))


def random(seed: int, *shape: int) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_labels(seed: int, *shape: int) -> Tensor:
    drawn = torch.randint(0, K + 1, shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(drawn == K, IGNORE, drawn).to(torch.uint8)


def close(found: Tensor, expected: NDArray[np.float64] | float) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


seeds = st.integers(0, 1000)
few = settings(max_examples=15, deadline=None)


@few
@given(seed=seeds)
def test_cross_entropies(seed: int) -> None:
    z, labels = random(seed, 2, K, 4, 3), random_labels(seed, 2, 4, 3)
    close(cross_entropy(z, labels), slow.cross_entropy(z.double().numpy(), labels.numpy()))
    close(unbiased_cross_entropy(z, labels, OLD), slow.unbiased_cross_entropy(z.double().numpy(), labels.numpy(), OLD))


@few
@given(seed=seeds, weight=st.sampled_from([None, 0.5, 2.0]))
def test_new_classes_bce(seed: int, weight: float | None) -> None:
    z, labels = random(seed, 2, NEW, 4, 3), random_labels(seed, 2, 4, 3)
    expected = slow.new_classes_bce(z.double().numpy(), labels.numpy(), OLD, weight or 1.0)
    close(PixelMean(labels != IGNORE)(new_classes_bce(z, labels, OLD, weight)), expected)


@few
@given(seed=seeds)
def test_distillations(seed: int) -> None:
    z, u, valid = random(seed, 2, K, 4, 3), random(seed + 1, 2, 1 + OLD, 4, 3), random(seed, 2, 4, 3) > 0
    mean = PixelMean(valid)
    close(mean(plain_distillation(z, u)), slow.plain_distillation(z.double().numpy(), u.double().numpy(), valid.numpy()))
    expected = slow.imitation_bce(z[:, : 1 + OLD].double().numpy(), u.double().numpy(), valid.numpy())
    close(mean(imitation_bce(z[:, : 1 + OLD], u)), expected)


@few
@given(seed=seeds)
def test_gated_pseudo_labels(seed: int) -> None:
    u, labels = random(seed, 2, 1 + OLD, 4, 3), random_labels(seed, 2, 4, 3)
    thresholds = torch.tensor([0.3, 0.6, 0.9])
    found, best = entropy(u)
    expected_entropy, expected_best = slow.normalised_entropy(u.double().numpy())
    close(found, expected_entropy)
    assert (best.numpy() == expected_best).all()
    targets, factor = gated_pseudo_labels(labels, u, thresholds)
    expected_targets, expected_factor = slow.gated_pseudo_labels(labels.numpy(), u.double().numpy(), [0.3, 0.6, 0.9])
    assert (targets.numpy() == expected_targets).all()
    close(factor, expected_factor)


def test_an_image_without_background_keeps_its_whole_loss() -> None:
    labels = torch.full((1, 2, 2), 3, dtype=torch.uint8)
    assert gated_pseudo_labels(labels, random(0, 1, 3, 2, 2), torch.ones(3))[1].tolist() == [1.0]


@few
@given(seed=seeds, height=st.integers(2, 9), width=st.integers(2, 9))
def test_local_pod(seed: int, height: int, width: int) -> None:
    a, b = random(seed, 2, 3, height, width), random(seed + 1, 2, 3, height, width)
    close(local_pod(a, b, (1, 2, 4)), slow.local_pod(a.double().numpy(), b.double().numpy(), (1, 2, 4)))


@few
@given(seed=seeds)
def test_reasoning_scores_sum_to_the_logits(seed: int) -> None:
    torch.manual_seed(seed)
    model = DeepLab(TINY, [OLD, NEW])
    features = random(seed, 2, 8, 3, 3).relu()
    positive, negative = reasoning_scores(model, features, OLD)
    weight, bias = (model.state_dict()[f"classifiers.1.{part}"] for part in ("weight", "bias"))
    expected = slow.decomposed(features.double().numpy(), weight.double().numpy()[:, :, 0, 0])
    close(positive, expected[0])
    close(negative, expected[1])
    close(positive + negative + bias.view(1, -1, 1, 1), model.classify(features)[:, 1 : 1 + OLD].detach().numpy())


def batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0, 3, IGNORE, 4], dtype=torch.uint8).repeat_interleave(8).expand(2, 32, 32).contiguous()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Batch(images, labels, seed=1, replayed=torch.tensor([False, True]))


def context(teacher: bool = True, unknown: bool = False) -> Context:
    torch.manual_seed(0)
    config = TINY.model_copy(update={"unknown_class": unknown})
    prototypes = Prototypes(
        class_ids=torch.tensor([1, 2]),
        direction=torch.nn.functional.normalize(torch.rand(OLD, 8), dim=1),
        noise=torch.full((OLD, 8), 0.1),
        norm_mean=torch.ones(OLD),
        norm_std=torch.full((OLD,), 0.2),
        cells=torch.tensor([1e4, 2e4]),
        background=torch.tensor(1e5),
    )
    return Context(OLD, NEW, DeepLab(config, [OLD]).frozen_copy() if teacher else None, prototypes, per_epoch=4.0)


def student(unknown: bool = False) -> DeepLab:
    torch.manual_seed(1)
    return DeepLab(TINY.model_copy(update={"unknown_class": unknown}), [OLD, NEW]).eval()


def build(config: dict[str, object], **options: bool) -> Method:
    return build_method(TypeAdapter(method_settings.MethodConfig).validate_python(config), context(**options))


def full(low: Tensor) -> Tensor:
    raised: Tensor = interpolate(low, (32, 32), mode="bilinear")
    return raised


def test_mib_is_unbiased_and_lwf_is_plain() -> None:
    model, prepared = student(), build({"name": "mib"}).prepare(batch())
    assert prepared.teacher_logits is not None
    z, labels, u = full(model(batch().images)).detach(), batch().labels, full(prepared.teacher_logits)
    valid = labels != IGNORE
    losses = build({"name": "mib"}).losses(model, prepared)
    close(losses["unce"], float(unbiased_cross_entropy(z, labels, OLD)[valid].mean()))
    # To the unbiased distillation it is all one whether the student says background or a new class.
    moved = z.clone()
    moved[:, 0], moved[:, -1] = z[:, -1], z[:, 0]
    close(losses["unkd"], 10 * float(rskd(moved, u, valid).mean()))
    plain = build({"name": "lwf"}).losses(model, prepared)
    close(plain["ce"], float(cross_entropy(z, labels)[valid].mean()))
    close(plain["kd"], 100 * float(PixelMean(valid)(plain_distillation(z, u))))
    ablated = build({"name": "mib", "unbiased": False}).losses(model, prepared)
    close(ablated["ce"], float(plain["ce"].detach()))


def test_ilt_is_lwf_with_the_encoders_features_held() -> None:
    ilt, model = build({"name": "ilt"}), student()
    losses = ilt.losses(model, ilt.prepare(batch()))
    plain = build({"name": "lwf"}).losses(model, build({"name": "lwf"}).prepare(batch()))
    assert isinstance(ilt, Ilt)
    teacher = ilt.context.teacher
    assert teacher is not None
    ours, theirs = (m.stages(batch().images)[-2].detach().double().numpy() for m in (model, teacher))
    close(losses.pop("features"), 100 * float(np.mean([(a - b) ** 2 for a, b in zip(ours.flat, theirs.flat, strict=True)])))
    assert losses == plain


def test_plop_thresholds_are_medians_and_its_pod_covers_all_stages() -> None:
    plop = build({"name": "plop"})
    assert isinstance(plop, Plop)
    teacher = plop.context.teacher
    assert teacher is not None
    model, batches = student(), [batch(seed) for seed in range(3)]
    plop.begin(model, lambda: iter(batches))
    seen = [(b.labels.numpy(), full(teacher(b.images.float())).double().numpy()) for b in batches]
    medians = slow.entropy_medians(seen, OLD)
    for found, median in zip(plop.thresholds.tolist(), medians, strict=True):
        assert found == pytest.approx(0.001 if np.isnan(median) else median, abs=2e-3)
    prepared = plop.prepare(batch())
    losses = plop.losses(model, prepared)
    ours = [*model.stages(batch().images)[:-1], model(batch().images)]
    theirs = [*teacher.stages(batch().images)[:-1], teacher(batch().images)]
    maps = [(a.detach().double().numpy(), b.double().numpy()) for a, b in zip(ours, theirs, strict=True)]
    maps[-1] = (slow.merge_new_into_background(maps[-1][0], OLD), maps[-1][1])
    parts = [weight * slow.local_pod(a, b, (1, 2, 4)) for weight, (a, b) in zip([0.01] * 4 + [0.0005], maps, strict=True)]
    close(losses["pod"], np.sqrt(K / NEW) * np.mean(parts))


@few
@given(
    counts=st.lists(st.lists(st.integers(0, 60), min_size=100, max_size=100), min_size=1, max_size=3), full_bin=st.integers(0, 99)
)
def test_plops_released_medians(counts: list[list[int]], full_bin: int) -> None:
    """Of any histogram; of one bin that holds nearly all; of none; of many bins that no bin outweighs."""
    one, many = [0] * 100, [20000] * 99 + [0]
    one[full_bin], one[0] = 90000, 5
    none_fits = [0, 0, 0, 1, 0, 1] + [0] * 94
    counts = [*counts, one, [0] * 100, many, [100] * 50 + [0] * 50, none_fits]
    found = released_medians(torch.tensor(counts))
    np.testing.assert_allclose(found.numpy(), [slow.released_median(row) for row in counts], rtol=1e-5)


def test_plops_released_gate_accepts_what_the_released_code_does() -> None:
    plop, paper = build({"name": "plop", "gate": "release"}), build({"name": "plop"})
    assert isinstance(plop, Plop)
    assert isinstance(paper, Plop)
    teacher = plop.context.teacher
    assert teacher is not None
    batches = [batch(seed) for seed in range(3)]
    for method in (plop, paper):
        method.begin(student(), lambda: iter(batches))
    seen = [(b.labels.numpy(), full(teacher(b.images.float())).double().numpy()) for b in batches]
    thresholds = slow.released_thresholds(seen, OLD, NEW, 0.001)
    accepted = []
    for labels, u in seen:
        targets, factor = gated_pseudo_labels(torch.from_numpy(labels), torch.from_numpy(u).float(), plop.thresholds)
        measured, best = slow.released_entropy(u, NEW)
        sure = (labels == 0) & (measured < thresholds[best])
        # Pixels within rounding of a threshold may fall on either side.
        clear = np.abs(measured - thresholds[best]) > 1e-5
        expected = np.where(sure, best, np.where(labels == 0, IGNORE, labels))
        assert (targets.numpy() == expected)[clear].all()
        assert clear.mean() > 0.9
        theirs = gated_pseudo_labels(torch.from_numpy(labels), torch.from_numpy(u).float(), paper.thresholds)[1]
        accepted.append((float(factor.mean()), float(theirs.mean())))
    assert any(release != pytest.approx(paper) for release, paper in accepted)


def test_plops_pod_holds_the_heads_output_too_if_asked() -> None:
    plop, model = build({"name": "plop", "pod_head": True}), student()
    assert isinstance(plop, Plop)
    teacher = plop.context.teacher
    assert teacher is not None
    plop.begin(model, lambda: iter([batch()]))
    maps = [
        (a.detach().double().numpy(), b.detach().double().numpy())
        for a, b in zip(model.stages(batch().images), teacher.stages(batch().images), strict=True)
    ]
    ours, theirs = (m(batch().images).detach().double().numpy() for m in (model, teacher))
    maps.append((slow.merge_new_into_background(ours, OLD), theirs))
    parts = [weight * slow.local_pod(a, b, (1, 2, 4)) for weight, (a, b) in zip([0.01] * 5 + [0.0005], maps, strict=True)]
    close(plop.losses(model, plop.prepare(batch()))["pod"], np.sqrt(K / NEW) * np.mean(parts))


def test_dkd_trains_new_channels_on_labels_and_old_ones_on_the_teacher() -> None:
    dkd = build({"name": "dkd"})
    assert isinstance(dkd, Dkd)
    model, prepared, teacher = student(), dkd.prepare(batch()), dkd.context.teacher
    assert teacher is not None
    z, labels = full(model(batch().images)).detach(), batch().labels
    losses = dkd.losses(model, prepared)
    close(losses["mbce"], slow.new_classes_bce(z[:, 1 + OLD :].double().numpy(), labels.numpy(), OLD, 1.0))
    close(losses["ac"], float(torch.nn.functional.softplus(z[:, 0])[labels != IGNORE].mean()))
    assert prepared.teacher_logits is not None
    u = full(prepared.teacher_logits)[:, 1:].double().numpy()
    close(losses["kd"], 5 * slow.imitation_bce(z[:, 1 : 1 + OLD].double().numpy(), u, (labels != IGNORE).numpy()))
    weights = [m.state_dict()["classifiers.1.weight"].double().numpy()[:, :, 0, 0] for m in (model, teacher)]
    features = [m.features(batch().images).detach().double().numpy() for m in (model, teacher)]
    ours, theirs = (slow.decomposed(f, w) for f, w in zip(features, weights, strict=True))
    everywhere = np.ones((2, 8, 8), bool)
    close(losses["dkd+"], 5 * slow.imitation_bce(ours[0], theirs[0], everywhere))
    close(losses["dkd-"], 5 * slow.imitation_bce(ours[1], theirs[1], everywhere))


@pytest.mark.parametrize("base", [True, False])
def test_dkd_weighs_positives_of_its_own_base_step_and_of_later_steps_apart(base: bool) -> None:
    settings = method_settings.DkdSettings(name="dkd", base_step="own", base_positive_weight=2.0, positive_weight=35.0)
    old = 0 if base else OLD
    dkd = build_method(settings, Context(0, OLD + NEW, None) if base else context())
    model = DeepLab(TINY, [OLD + NEW]).eval() if base else student()
    z = full(model(batch().images)).detach().double().numpy()
    expected = slow.new_classes_bce(z[:, 1 + old :], batch().labels.numpy(), old, 2.0 if base else 35.0)
    close(dkd.losses(model, dkd.prepare(batch()))["mbce"], expected)


def test_dkds_auxiliary_classifier_does_not_shape_the_features() -> None:
    dkd, model = build({"name": "dkd"}), student()
    torch.autograd.backward(dkd.losses(model, dkd.prepare(batch()))["ac"])
    assert not any(p.grad.any() for p in model.backbone.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in model.classifiers[0].parameters())


def test_ssul_freezes_all_but_background_unknown_and_new_classes() -> None:
    ssul, model = build({"name": "ssul"}, unknown=True), student(unknown=True)
    assert isinstance(ssul, Ssul)
    ssul.begin(model, lambda: ())
    prepared = ssul.prepare(batch())
    torch.autograd.backward(ssul.losses(model, prepared)["bce"])
    learning = {
        name.split(".weight")[0] for name, p in model.named_parameters() if p.grad is not None and name.endswith("weight")
    }
    assert learning == {"classifiers.0", "classifiers.2", "unknown"}


def test_ssuls_unknown_pixels_are_those_the_old_model_neither_knows_nor_calls_background() -> None:
    ssul = build({"name": "ssul", "threshold": 0.6}, unknown=True)
    assert isinstance(ssul, Ssul)
    prepared = ssul.prepare(batch())
    assert prepared.targets is not None
    sigmoids = full(ssul.teacher(batch().images.float())).sigmoid()
    for n, row, column in np.ndindex(2, 32, 32):
        label, p = int(batch().labels[n, row, column]), sigmoids[n, :, row, column]
        best = int(p.argmax())
        wanted = label if label not in (0, IGNORE) else 0
        if label == 0 and best > 0 and p[best] >= 0.6:
            wanted = best
        elif label == 0 and p[0] < 0.5:
            wanted = K
        assert int(prepared.targets.channels[n, 0, row, column]) == wanted
        assert bool(prepared.targets.valid[n, row, column]) == (label != IGNORE)
    model = student(unknown=True)
    assert model.unknown is not None
    z = full(torch.cat([model(batch().images), model.unknown(model.features(batch().images))], dim=1)).detach()
    dense = torch.nn.functional.one_hot(prepared.targets.channels[:, 0].long(), K + 1).permute(0, 3, 1, 2)
    expected = reference.summed_bce(z.double().numpy(), dense.double().numpy(), prepared.targets.valid.numpy(), 1.0)
    close(ssul.losses(model, prepared)["bce"], expected)


def test_star_makes_up_for_what_the_step_lacks() -> None:
    star = build({"name": "star"})
    assert isinstance(star, Star)
    star.begin(student(), lambda: iter([batch(0), batch(1)]))
    shown = np.zeros(1 + OLD)
    for b in (batch(0), batch(1)):
        z = star.teacher(b.images.float())
        grid = b.labels[:, 2::4, 2::4]
        guess = torch.where(z[:, 1:].amax(1) > 0, z[:, 1:].argmax(1) + 1, 0)
        for channel in range(1 + OLD):
            shown[channel] += int(((grid == 0) & (guess == channel)).sum())
    assert star.per_batch.tolist() == pytest.approx(
        [max(cells - s, 0) / 4 for cells, s in zip([1e4, 2e4], shown[1:], strict=True)]
    )
    assert star.more_background == pytest.approx(max(1e5 / max(shown[0], 1) - 0.5, 0))


@pytest.mark.parametrize("least", [0.0, 0.5])
def test_star_counts_and_holds_what_the_teacher_predicts_above_a_logit(least: float) -> None:
    star = build({"name": "star", "teacher_logit": least})
    assert isinstance(star, Star)
    # The 8 x 8 cells' best logits are spread about the thresholds, background's labels are in the first 8 of 32 columns.
    wide = torch.linspace(-1, 2, 64).view(1, 1, 8, 8).expand(2, -1, -1, -1)
    star.teacher.classify = lambda features: torch.cat([wide, wide - 1, wide], dim=1)  # type: ignore[method-assign]
    prepared = star.prepare(batch())
    assert prepared.region is not None
    inside = torch.zeros(2, 8, 8, dtype=torch.bool)
    inside[:, :, :2] = True
    assert torch.equal(prepared.region, inside & (wide[:, 0] > least))
    assert torch.equal(prepared.teacher_features[1], inside & ~(wide[:, 0] > least))


def test_star_losses() -> None:
    star = build({"name": "star"})
    assert isinstance(star, Star)
    model, prepared = student(), star.prepare(batch())
    star.per_batch, star.more_background = torch.tensor([4.5, 3.0]), 2.0
    losses = star.losses(model, prepared)
    f, t = (m.features(batch().images).detach() for m in (model, star.teacher))
    assert prepared.region is not None
    close(losses["ocfm"], 5 * slow.ocfm(f.double().numpy(), t.double().numpy(), prepared.region.numpy()))
    area = [interpolate((batch().labels == c).float()[:, None], (8, 8), mode="area")[:, 0] for c in (3, 4)]
    shares = torch.stack(area).double().numpy()
    close(losses["sad"], 0.05 * slow.sad(f.double().numpy(), shares, star.prototypes.direction.double().numpy()))
    # The classification loss is one mean over pixels (as cells), replayed features and repeated background.
    z = full(model.classify(f))[:, 1 + OLD :].detach()
    pixels = slow.new_classes_bce(z.double().numpy(), batch().labels.numpy(), OLD, 1.0)
    generator = torch.Generator().manual_seed(batch().seed)
    counts = torch.tensor([4 + int(torch.rand(2, generator=generator)[0] >= 0.5), 3])
    drawn = sample(star.prototypes, counts, generator)
    negatives = torch.nn.functional.softplus(model.classifiers[2](drawn[:, :, None, None])).sum()
    background = prepared.teacher_features[1]
    repeated = (torch.nn.functional.softplus(model.classifiers[2](f)).sum(1) * background).sum()
    cells = 2 * 8 * 8
    expected = (pixels * cells + float(negatives.detach()) + 2 * float(repeated.detach())) / (
        cells + len(drawn) + 2 * float(background.sum())
    )
    close(losses["mbce"], expected)


@pytest.mark.parametrize("missing", ["pseudo-labels", "confident", "ignore", "background"])
@pytest.mark.parametrize("also_new", [False, True])
def test_image_replay_treats_stored_background_as_told(missing: str, also_new: bool) -> None:
    options: dict[str, object] = {"name": "image-replay", "missing": missing, "pseudo_labels": also_new, "threshold": 0.0}
    teacher = build(options | {"distill": {"weight": 2}}).prepare(batch()).teacher_logits
    assert teacher is not None
    options["threshold"] = float(full(teacher).amax(dim=1).sigmoid()[:, :8].median())  # of background, half is above
    method = build(options)
    prepared, labels = method.prepare(batch()), batch().labels
    assert prepared.targets is not None
    channels, valid = prepared.targets.channels[:, 0], prepared.targets.valid
    background = labels[0] == 0
    completed = [bool((channels[n][background] != 0).any()) for n in (0, 1)]
    assert completed == [also_new, missing in ("pseudo-labels", "confident")]
    assert bool(valid[1][background].any()) == (missing != "ignore")
    assert bool((valid[1] & (channels[1] == 0))[background].any()) == (missing in ("pseudo-labels", "background"))
    assert bool(valid[0][background].all())
    assert not valid[:, labels[0] == IGNORE].any()
    assert prepared.teacher_logits is None
    assert build(options | {"distill": {"weight": 2}}).prepare(batch()).teacher_logits is not None


@pytest.mark.parametrize("name", ["lwf", "mib", "plop", "dkd"])
def test_a_base_step_of_ones_own_has_the_papers_loss(name: str) -> None:
    method = build({"name": name, "base_step": "own"}, teacher=False)
    model = DeepLab(TINY, [OLD + NEW])
    if name == "dkd":
        method = build_method(method_settings.DkdSettings(name="dkd", base_step="own"), Context(0, OLD + NEW, None))
    method.begin(model, lambda: ())
    losses = method.losses(model, method.prepare(batch()))
    assert set(losses) == ({"mbce", "ac"} if name == "dkd" else {"ce"})
    shared, own = (
        TypeAdapter(method_settings.MethodConfig).validate_python({"name": name, "base_step": b}) for b in ("shared", "own")
    )
    assert shared.activation(0) == "sigmoid"
    assert own.activation(0) == shared.activation(1) == ("sigmoid" if name == "dkd" else "softmax")
