"""`eir build-memory`: what a step keeps of the old classes: instances, whole images, or prototypes."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from eircli.common.errors import UserError
from eircli.common.progress import Say, track
from eircli.common.seeds import derive_seed
from eircli.config.fingerprint import fingerprint
from eircli.config.manifest import Manifest
from eircli.config.methods import Star
from eircli.data.step_view import StepView
from eircli.engine.distributed import collected, count, own_share
from eircli.memory.bank import Bank, Record, encode, write_bank
from eircli.memory.harvest import Candidate, candidates, cut_out, image_candidates, store_image
from eircli.memory.prototypes import gather, merge, read_prototypes, write_prototypes
from eircli.memory.select import RULES, Pool, share_out
from eircli.run.main_process import by_main, is_done
from eircli.run.run import Workbench
from eircli.stages.score_candidates import feature_batches, rate

Facts = dict[str, Any]


def build_memory(bench: Workbench, step: int, say: Say, again: bool = False) -> None:
    """Build the memory of `step` from the images of the step before and the memory before (method §4).

    Unless the rule or the kind of memory asks the model, nothing is trained for it, so it may be built before the step
    before is trained.

    Raises:
        UserError: the method keeps nothing, something it needs is missing, or nothing can be kept.
    """
    bench.check_step(step)
    run = bench.run
    if step == 0:
        raise UserError("--step 0: the base step trains without a bank; the first bank is that of step 1")
    if bench.manifest.keeps is None:
        raise UserError(f"method {bench.manifest.method.name} (as set) keeps no bank; there is nothing to build")
    if not again and is_done(bench, step, "bank"):
        say(f"the bank of step {step} is there already: {run.bank(step)} (--again builds it anew)")
        return
    if step > 1 and not is_done(bench, step - 1, "bank"):
        build_memory(bench, step - 1, say)
    if bench.manifest.keeps == "prototypes":
        by_main(bench, lambda: run.record(step, "bank", run.bank(step), **_build_prototypes(bench, step)))
    else:
        _build_bank(bench, step)


def _build_bank(bench: Workbench, step: int) -> None:
    memory, run = bench.manifest.memory, bench.run
    before = Bank(bench.run.verify(step - 1, "bank")) if step > 1 else None
    facts = {"kind": str(bench.manifest.keeps), "rule": memory.rule, "budget": str(memory.budget), "selection": memory.selection}
    records = _choose(bench, step, before)

    def write() -> None:
        write_bank(run.bank(step), records, {"step": step, "recipe": fingerprint(bench.manifest), **facts})
        written = Bank(run.bank(step))
        run.record(step, "bank", run.bank(step), **facts, exemplars=len(written), bytes=written.size)

    by_main(bench, write)


def _choose(bench: Workbench, step: int, before: Bank | None) -> Iterator[Record]:
    """The exemplars under the budget, class by class: of each class learned at step - 1 the best of its candidates; of each
    class before the best of what the bank before holds, in the order in which it holds them.

    Raises:
        UserError: there is none.
    """
    view, schedule, memory = bench.training_view(step - 1), bench.schedule, bench.manifest.memory
    old = schedule.old(step - 1)
    channels = {schedule.seen(step - 1).index(class_id) + 1: class_id for class_id in schedule.new(step - 1)}
    found = _scan(bench, step - 1, view, list(channels))
    generator = np.random.default_rng(derive_seed(bench.manifest.seed, "memory", step))
    ranked: dict[int, Sequence[int]] = {}
    for class_id in old:
        assert before is not None
        ranked[class_id] = before.classes.get(class_id, range(0))
    ranked |= {channels[channel]: order for channel, order in _ranked(bench, step - 1, view, found, channels, generator).items()}
    ids = np.arange(256, dtype=np.uint8)
    ids[list(channels)] = list(channels.values())

    def record(class_id: int, position: int) -> Record:
        if class_id in old:
            assert before is not None
            return before.record(position)
        candidate, name = found[position], view.ids[found[position].image]
        if bench.manifest.keeps == "images":
            return encode(store_image(view, candidate, ids, class_id, name, step - 1), memory.encoding, memory.jpeg_quality)
        return encode(cut_out(view, candidate, class_id, name, step - 1), memory.encoding, memory.jpeg_quality)

    # Sizes and names are kept, records are not: the bank is written one record at a time.
    @cache
    def cost(class_id: int, position: int) -> int:
        return record(class_id, position).size if memory.limit.unit == "bytes" else 1

    @cache
    def identity(class_id: int, position: int) -> Hashable:
        """Whole images are kept once, although they are ranked for each of their classes."""
        if bench.manifest.keeps == "instances":
            return class_id, position
        return record(class_id, position).source if class_id in old else view.ids[found[position].image]

    if bench.manifest.keeps == "images":  # the rarest class first: common ones share its images
        ranked = dict(sorted(ranked.items(), key=lambda pair: len(pair[1])))
    kept = share_out(ranked, memory.limit.amount, cost, identity)
    if not any(kept.values()):
        raise UserError(
            f"step {step}: nothing could be kept; try --set memory.selection=component, or a larger memory.budget ({memory.limit})"
        )
    chosen = [(class_id, position) for class_id, positions in kept.items() for position in positions]
    if count() == 1:
        return (record(*one) for one in chosen)  # encoded as they are written
    return iter(collected([record(*chosen[number]) for number in own_share(len(chosen))]))


def _ranked(
    bench: Workbench,
    step: int,
    view: StepView,
    found: Sequence[Candidate],
    channels: dict[int, int],
    generator: np.random.Generator,
) -> dict[int, list[int]]:
    """Each channel's candidates as positions in `found`, ordered by the memory's rule."""
    memory = bench.manifest.memory
    area = np.array([candidate.area for candidate in found], float)
    confidence, features = np.zeros(len(found)), np.zeros((len(found), 0))
    if memory.needs_model and found:
        ratings = rate(bench, step, view, found)
        confidence = np.array([rating.confidence for rating in ratings])
        features = torch.stack([rating.feature for rating in ratings]).double().numpy()
    ranked = {}
    for channel in channels:
        mine = np.array([position for position, candidate in enumerate(found) if candidate.channel == channel], np.intp)
        order = RULES[memory.rule](Pool(area[mine], confidence[mine], features[mine]), generator)
        ranked[channel] = [int(position) for position in mine[order]]
    return ranked


class _Scan:
    """Finds the candidates of one image; mapped over a view by worker processes."""

    def __init__(self, view: StepView, channels: list[int], manifest: Manifest) -> None:
        self.view, self.channels, self.memory, self.keeps = view, channels, manifest.memory, manifest.keeps

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, image: int) -> list[Candidate]:
        label = self.view.load_label(image)
        if self.keeps == "images":
            return image_candidates(label, self.channels, image)
        return candidates(label, self.channels, image, self.memory.selection, self.memory.min_area)


def _scan(bench: Workbench, step: int, view: StepView, channels: list[int]) -> list[Candidate]:
    scan = Subset(cast(Any, _Scan(view, channels, bench.manifest)), own_share(len(view)))
    rows_per_image: DataLoader[Any] = DataLoader(scan, batch_size=None, num_workers=bench.workers, generator=torch.Generator())
    rows = list(track(rows_per_image, f"harvesting step {step}", len(scan), "images"))
    return [candidate for row in collected(rows) for candidate in row]


def _build_prototypes(bench: Workbench, step: int) -> Facts:
    method, schedule = bench.manifest.method, bench.schedule
    assert isinstance(method, Star)
    classes = schedule.new(step - 1)
    channels = [schedule.seen(step - 1).index(class_id) + 1 for class_id in classes]
    prototypes = gather(feature_batches(bench, step - 1, bench.training_view(step - 1)), channels, classes)
    if step > 1:
        prototypes = merge(read_prototypes(bench.run.verify(step - 1, "bank")), prototypes, method.shared_background)
    facts: dict[str, int | str] = {"kind": "prototypes", "step": step, "recipe": fingerprint(bench.manifest)}
    write_prototypes(bench.run.bank(step), prototypes, facts)
    stored = sum(tensor.numel() * tensor.element_size() for tensor in prototypes)
    return {"kind": "prototypes", "exemplars": len(prototypes.class_ids), "bytes": stored}


def bank_facts(bench: Workbench, step: int) -> Facts:
    """What the memory of a step holds: exemplars per class by name, bytes, and the classes that fell short."""
    path = bench.run.verify(step, "bank")
    recorded, old = bench.run.steps[step]["bank"], bench.schedule.old(step)
    held = dict.fromkeys(old, 1) if recorded["kind"] == "prototypes" else Bank(path).per_class()
    limit = bench.manifest.memory.limit
    share = limit.amount // len(old) if limit.unit == "exemplars" and recorded["kind"] != "prototypes" else 1
    return {
        "step": step,
        "path": str(path),
        "kind": recorded["kind"],
        "rule": recorded.get("rule"),
        "budget": bench.manifest.memory.budget,
        "exemplars": recorded["exemplars"],
        "bytes": recorded["bytes"],
        "file_bytes": recorded["size"],
        "per_class": {bench.class_name(c): held.get(c, 0) for c in old},
        "short": [bench.class_name(c) for c in old if held.get(c, 0) < share],
    }
