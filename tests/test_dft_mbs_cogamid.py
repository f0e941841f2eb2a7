"""The losses of DFT*, MBS and CoGaMiD against loops over pixels in float64, and new classifiers started from similar ones."""

from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize, softplus

from eircli.common.errors import UserError
from eircli.common.types import IGNORE, Batch
from eircli.config import methods as method_settings
from eircli.config.manifest import StepTraining
from eircli.config.recipe import resolve
from eircli.engine.optim import build_optimizer
from eircli.memory.mixtures import Fitting, Mixtures, gather, likelihoods, sample
from eircli.methods import build_method
from eircli.methods.base import Context, Method
from eircli.methods.cogamid import Cogamid, pseudo_region, uncertainty
from eircli.methods.losses import label_guided_distillation, unbiased_cross_entropy
from eircli.methods.mbs import Mbs, selective_labels, squared_cosines
from eircli.model.deeplab import DeepLab
from eircli.model.similar import TEMPERATURE, mixing_shares, nearest_old_classes, start_from_similar
from tests import reference_rivals as slow
from tests.test_rivals import NEW, OLD, TINY, K, batch, close, few, full, random, random_labels, seeds, student


def mixtures() -> Mixtures:
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(1, 3, (4, 8, 8), generator=generator).to(torch.uint8)
    features = torch.rand(4, 8, 8, 8, generator=generator) + labels[:, None] / 2
    kept = gather([(features, labels, labels == 0)], [1, 2], [1, 2], Fitting(2, False, 100), generator)
    return kept._replace(cells=torch.tensor([1e4, 2e4]), background=torch.tensor(1e5))


def context(teacher: bool = True) -> Context:
    torch.manual_seed(0)
    return Context(OLD, NEW, DeepLab(TINY, [OLD]).frozen_copy() if teacher else None, mixtures(), per_epoch=4.0)


def build(**config: object) -> Method:
    return build_method(TypeAdapter(method_settings.MethodConfig).validate_python(config), context())


def doubles(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def test_dft_moves_the_new_classifier_alone() -> None:
    dft, model = build(name="dft"), student()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = build_optimizer(
        model.parameter_groups(), StepTraining(iterations=2, weight_decay=0.5, weight_decay_on="all", lr=0.1)
    )
    dft.begin(model, lambda: ())
    for _ in range(2):
        optimizer.zero_grad()
        losses = dft.losses(model, dft.prepare(batch()))
        torch.autograd.backward(losses["ce"])
        optimizer.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {"classifiers.2.weight", "classifiers.2.bias"}


def test_dfts_loss_is_the_cross_entropy_of_the_labels_as_they_are() -> None:
    dft, model, labels = build(name="dft"), student(), batch().labels
    z = doubles(full(model(batch().images)))
    found = dft.losses(model, dft.prepare(batch()))
    assert set(found) == {"ce"}
    close(found["ce"], slow.cross_entropy(z, labels.numpy())[labels != IGNORE].mean())


def test_dfts_future_channels_are_negatives_in_the_base_step() -> None:
    settings = method_settings.DftSettings(name="dft", base_step="own", future_channels=True)
    dft, model = build_method(settings, Context(0, OLD + NEW, None)), DeepLab(TINY, [OLD + NEW], reserved=3).eval()
    dft.begin(model, lambda: ())
    assert model.reserved is not None
    z = doubles(full(torch.cat([model(batch().images), model.reserved(model.features(batch().images))], dim=1)))
    loss = dft.losses(model, dft.prepare(batch()))["ce"]
    close(loss, slow.cross_entropy(z, batch().labels.numpy())[batch().labels != IGNORE].mean())
    torch.autograd.backward(loss)
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.reserved.parameters())


@pytest.mark.parametrize(
    ("method", "start", "message"),
    [
        (
            "{name: dft, future_channels: true}",
            "random",
            "method: future_channels are trained in the base step, so they need base_step: own",
        ),
        ("{name: dft, future_channels: true, base_step: own}", "background", "method dft has its new classifiers already"),
    ],
)
def test_future_channels_where_they_cannot_be_are_refused(method: str, start: str, message: str) -> None:
    recipe = {"name": "x", "dataset": {"kind": "shapes"}, "protocol": {"schedule": "6-2"}, "method": {"name": "eir"}}
    with pytest.raises(UserError, match=message):
        resolve(recipe, [f"method={method}", f"model.new_classifier={start}"])


@few
@given(seed=seeds)
def test_label_guided_distillation(seed: int) -> None:
    z, u, labels = random(seed, 2, K, 4, 3), random(seed + 1, 2, 1 + OLD, 4, 3), random_labels(seed, 2, 4, 3)
    close(label_guided_distillation(z, u, labels), slow.label_guided_distillation(doubles(z), doubles(u), labels.numpy()))


@few
@given(seed=seeds)
def test_selective_labels(seed: int) -> None:
    u, labels = random(seed, 2, 1 + OLD, 4, 3), random_labels(seed, 2, 4, 3)
    found = selective_labels(labels, u, 0.7)
    assert (found.numpy() == slow.selective_labels(labels.numpy(), doubles(u), 0.7)).all()


@few
@given(seed=seeds)
def test_squared_cosines_move_new_rows_alone(seed: int) -> None:
    weight = random(seed, K, 8).requires_grad_()
    found = squared_cosines(weight, NEW)
    close(found, slow.squared_cosines(doubles(weight), NEW))
    with torch.autocast("cpu", torch.bfloat16):
        close(squared_cosines(weight, NEW), slow.squared_cosines(doubles(weight), NEW))
    torch.autograd.backward(found)
    assert weight.grad is not None
    assert weight.grad.any(dim=1).tolist() == [False] * (1 + OLD) + [True] * NEW


@pytest.mark.parametrize("background", ["unbiased", "selective"])
def test_mbs_losses(background: str) -> None:
    mbs, model = build(name="mbs", background=background, threshold=0.45), student()
    assert isinstance(mbs, Mbs)
    teacher, labels, prepared = mbs.context.teacher, batch().labels, mbs.prepare(batch())
    assert teacher is not None
    losses = mbs.losses(model, prepared)
    low = teacher(batch().images.float())
    z, u = full(model(batch().images)).detach(), full(low)
    valid = labels != IGNORE
    expected = slow.label_guided_distillation(doubles(z), doubles(u), labels.numpy())
    close(losses["outputs"], 25 * expected[valid].mean())
    ours, theirs = (doubles(m.features(batch().images)) for m in (model, teacher))
    grid = labels[:, 2::4, 2::4].numpy()
    close(losses["features"], slow.adaptive_feature_distance(ours, theirs, doubles(low), grid, OLD))
    rows = torch.cat([cast(nn.Conv2d, c).weight for c in model.classifiers]).flatten(1)
    close(losses["orthogonal"], NEW / K * slow.squared_cosines(doubles(rows), NEW))
    if background == "unbiased":
        close(losses["unce"], float(unbiased_cross_entropy(z, labels, OLD)[valid].mean()))
    else:
        targets = slow.selective_labels(labels.numpy(), doubles(u), 0.45)
        assert (targets != labels.numpy()).any()
        close(losses["ce"], slow.cross_entropy(doubles(z), targets)[valid].mean())


@few
@given(seed=seeds)
def test_uncertainty_spares_what_is_confidently_right(seed: int) -> None:
    z, labels = random(seed, 2, OLD + NEW, 4, 3).requires_grad_(), random_labels(seed, 2, 4, 3)
    found = uncertainty(z, labels, OLD, 0.7)
    close(found, slow.uncertainty(doubles(z), labels.numpy(), OLD, 0.7))
    torch.autograd.backward(found.sum())
    assert z.grad is not None
    assert not z.grad[:, :OLD].any()


def test_old_features_are_held_where_the_teacher_is_sure_and_surer_than_of_a_new_class() -> None:
    scores = torch.tensor([0.9, 0.9, 0.6, 0.0]).view(1, 1, 4)
    new = torch.tensor([[0.8, 0.95, 0.1, 0.1], [0.2, 0.1, 0.1, 0.1]]).logit().view(1, 2, 1, 4)
    assert pseudo_region(scores, new, 0.7).flatten().tolist() == [True, False, False, False]


def test_cogamid_losses() -> None:
    cogamid = build(name="cogamid", threshold=0.45)
    assert isinstance(cogamid, Cogamid)
    model, prepared, labels, teacher = student(), cogamid.prepare(batch()), batch().labels, cogamid.teacher
    with torch.no_grad():
        cast(Tensor, model.classifiers[-1].bias).sub_(0.043)  # so that of some cells the teacher is surer, of others the student
    cogamid.per_batch, cogamid.more_background = torch.tensor([4.5, 3.0]), 2.0
    losses = cogamid.losses(model, prepared)
    f, t = (m.features(batch().images).detach() for m in (model, teacher))
    grid, low = labels[:, 2::4, 2::4], model.classify(f).detach()
    score, mine = teacher.classify(t)[:, 1:].sigmoid().amax(dim=1), low[:, 1 + OLD :].sigmoid().amax(dim=1)
    held = np.zeros((2, 8, 8), dtype=bool)
    for n, row, column in np.ndindex(2, 8, 8):
        sure = float(score[n, row, column]) >= 0.45 and float(score[n, row, column]) > float(mine[n, row, column])
        held[n, row, column] = sure and int(grid[n, row, column]) == 0
    assert 0 < held.sum() < (grid == 0).sum()
    close(losses["features"], 5 * slow.ocfm(doubles(f), doubles(t), held))
    distance = 0.0
    for n, row, column in zip(*held.nonzero(), strict=True):
        a, b = (likelihoods(mixtures(), x[n, :, row, column][None])[0].tolist() for x in (f, t))
        distance += sum((p - q) ** 2 for p, q in zip(a, b, strict=True))
    close(losses["likelihoods"], 5 * distance / held.sum())
    shares = torch.stack([interpolate((labels == c).float()[:, None], (8, 8), mode="area")[:, 0] for c in (3, 4)])
    centres = normalize(mixtures().means.view(-1, 8), dim=1)
    close(losses["repulsion"], 0.05 * slow.sad(doubles(f), doubles(shares), doubles(centres)))
    z = full(low)
    valid = labels != IGNORE
    close(losses["uncertainty"], 0.1 * slow.uncertainty(doubles(z[:, 1:]), labels.numpy(), OLD, 0.7)[valid].mean())
    pixels = slow.new_classes_bce(doubles(z[:, 1 + OLD :]), labels.numpy(), OLD, 4.0)
    generator = torch.Generator().manual_seed(batch().seed)
    counts = torch.tensor([4 + int(torch.rand(2, generator=generator)[0] >= 0.5), 3])
    drawn = sample(mixtures(), counts, generator)
    negatives = float(softplus(model.classifiers[2](drawn[:, :, None, None])).sum().detach())
    background = prepared.teacher_features[1]
    repeated = float((softplus(model.classifiers[2](f)).sum(1) * background).sum().detach())
    cells = 2 * 8 * 8
    total = pixels * cells + negatives + 2 * repeated
    close(losses["mbce"], total / (cells + len(drawn) + 2 * float(background.sum())))


def test_cogamid_moves_no_old_classifier() -> None:
    cogamid, model = build(name="cogamid"), student()
    torch.autograd.backward(list(cogamid.losses(model, cogamid.prepare(batch())).values()))
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any() and "classifier" in name}
    assert moved == {"classifiers.2.weight", "classifiers.2.bias"}


@pytest.mark.parametrize("name", ["dft", "mbs"])
def test_a_base_step_of_ones_own_is_plain_cross_entropy(name: str) -> None:
    settings = TypeAdapter(method_settings.MethodConfig).validate_python({"name": name, "base_step": "own"})
    method, model = build_method(settings, Context(0, OLD + NEW, None)), DeepLab(TINY, [OLD + NEW]).eval()
    method.begin(model, lambda: ())
    losses = method.losses(model, method.prepare(batch()))
    z, labels = doubles(full(model(batch().images))), batch().labels
    assert set(losses) == {"ce"}
    close(losses["ce"], slow.cross_entropy(z, labels.numpy())[labels != IGNORE].mean())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_nearest_old_classes_are_counted_pixel_by_pixel() -> None:
    teacher = context().teacher
    assert teacher is not None
    found = nearest_old_classes(teacher, [batch(0), batch(1)], OLD, NEW)
    expected = sum(
        slow.nearest_old_classes(doubles(full(teacher(b.images.float()))), b.labels.numpy(), NEW) for b in (batch(0), batch(1))
    )
    assert (found.numpy() == expected).all()
    assert found.sum(dim=1).tolist() == [int((torch.cat([batch(0).labels, batch(1).labels]) == c).sum()) for c in (3, 4)]


def test_shares_are_a_softmax_and_even_without_a_pixel() -> None:
    found = mixing_shares(torch.tensor([[3, 1], [0, 0]]))
    expected = np.exp([0.75 / TEMPERATURE, 0.25 / TEMPERATURE])
    close(found, np.array([expected / expected.sum(), [0.5, 0.5]]))


def test_new_classifiers_start_near_the_mean_of_similar_ones_and_the_same_every_time() -> None:
    teacher = context().teacher
    assert teacher is not None

    def started(*batches: Batch) -> nn.Conv2d:
        model = teacher.frozen_copy()
        model.add_classes(NEW)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        start_from_similar(model, teacher, batches, torch.Generator().manual_seed(3))
        changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        assert changed == {"classifiers.2.weight", "classifiers.2.bias"}, "the newest's alone"
        return cast(nn.Conv2d, model.classifiers[-1])

    one, again = started(batch(0), batch(1)), started(batch(1), batch(0))
    assert torch.equal(one.weight, again.weight)
    shares = mixing_shares(nearest_old_classes(teacher, [batch(0), batch(1)], OLD, NEW))
    old = cast(nn.Conv2d, teacher.classifiers[1])
    torch.testing.assert_close(one.bias, shares @ cast(Tensor, old.bias))
    difference = (one.weight.flatten(1) - shares @ old.weight.flatten(1)).detach()
    assert 0 < float(difference.abs().max()) < 0.1 * float(old.weight.std())
