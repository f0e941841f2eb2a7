"""Several runs: seeds, comparison, sweeps, and recipes like other recipes."""

import csv
import io
import json
import math
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from eircli.cli.app import main
from eircli.common.errors import UserError
from eircli.common.records import to_json
from eircli.config.recipe import load_recipe
from eircli.config.sweep import parse_grid, variants
from eircli.reports.comparison import Difference, compare
from eircli.reports.comparison_tables import _drawn, _fitting, _width
from eircli.run.results import ClassResult, StepResults, read_results
from eircli.run.run import Run, open_run

TINY = Path(__file__).parent / "tiny.yaml"


def recipe(folder: Path, name: str, *, schedule: str = "2-1", extra: str = "") -> Path:
    path = folder / f"{name}.yaml"
    text = TINY.read_text().replace('schedule: "2-1"', f'schedule: "{schedule}"')
    path.write_text(text.replace("share_base_step: false", "share_base_step: true") + extra)
    return path


def fake_run(folder: Path, name: str, seed: int, alls: list[float], schedule: str = "2-1", **changes: Any) -> Run:
    """A run with made-up results: IoUs around `alls`, forgetting of 10 for the first class."""
    path = recipe(folder, name, schedule=schedule)
    run = open_run(path, [f"seed={seed}"], folder / "runs" / f"{name}-{seed}")
    with run.locked():
        for step, mean in enumerate(alls):
            ids = [0, *run.schedule.seen(step)]
            spread = [mean + (1 if i % 2 else -1) * (0 if len(ids) % 2 and i == len(ids) - 1 else 1) for i in range(len(ids))]
            rows = tuple(
                ClassResult(c, f"class {c}", 0, iou, 9, None, 10.0 if c in (0, 1) and step else None)
                for c, iou in zip(ids, spread, strict=True)
            )
            results = StepResults(step, None, None, statistics.fmean(spread), None, None, None, "s", "zero", rows, images=10)
            file = run.directory.results(step)
            file.parent.mkdir(exist_ok=True)
            file.write_text(to_json(replace(results, **changes)))
            run.directory.record(step, "results", file)
    return run


def test_means_deviations_and_order(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path, "bad", s, [70, 50, 30 + s]) for s in (0, 1, 2)]
    runs += [fake_run(tmp_path, "good", s, [70, 60, 50 + 2 * s]) for s in (2, 0, 1)]
    facts = compare(runs)
    assert [row.name for row in facts.runs] == ["good", "bad"] == [facts.against, "bad"]
    good, bad = facts.runs
    assert good.seeds == [0, 1, 2]
    last = good.steps[2]
    assert last["all"].values == [50, 52, 54]
    assert (last["all"].mean, last["all"].sd) == (52, 2)
    assert last["average"].mean == pytest.approx((70 + 60 + 52) / 3)
    assert last["forgetting"].mean == pytest.approx(((71 - 53) + (70 - 51) + (61 - 53)) / 3)
    assert good.steps[0]["new"].mean is None
    assert last["old"].mean == pytest.approx(52 - 1 / 3)
    assert last["new"].mean == pytest.approx(52.5)
    # Paired by seed: 30-50, 31-52, 32-54; t(0.975, 2) = 4.303, as any table has it.
    assert bad.difference is not None
    assert bad.difference.values == [-20, -21, -22]
    half = 4.3027 * 1 / math.sqrt(3)
    assert bad.difference.interval == pytest.approx([-21 - half, -21 + half], abs=1e-3)
    assert good.difference is None


def test_pairs_are_of_seeds_that_both_have(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path, "a", s, [70, 60, 50 + s]) for s in (0, 1)] + [
        fake_run(tmp_path, "b", s, [70, 60, 40]) for s in (1, 5)
    ]
    facts = compare(runs, against="b")
    (a,) = (row for row in facts.runs if row.name == "a")
    assert a.difference == Difference(seeds=[1], mean=11, interval=None, values=[11])


def test_joint_is_split_at_the_others_base_classes(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path, "steps", 0, [70, 60, 50]), fake_run(tmp_path, "joint", 0, [80], schedule="joint")]
    joint = next(row for row in compare(runs).runs if row.name == "joint")
    assert joint.steps[0]["old"].mean == pytest.approx(80 - 1 / 3)
    assert joint.steps[0]["new"].mean == pytest.approx(80.5)


def test_every_run_has_its_own_base_classes(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path, "two", 0, [70, 60, 50]), fake_run(tmp_path, "one", 0, [70, 65, 60, 55], schedule="1-1")]
    alone = {run.manifest.name: compare([run]).runs[0].steps for run in runs}
    together = {row.name: row.steps for row in compare(runs).runs}
    assert together == alone
    assert together["two"][0]["new"].mean is None
    joint = fake_run(tmp_path, "joint", 0, [80], schedule="joint")
    (row,) = (row for row in compare([*runs, joint]).runs if row.name == "joint")
    assert row.steps[0]["new"].mean is None, "nobody knows which classes would be old to it"


def test_forgetting_does_not_depend_on_the_order_of_evaluation(tmp_path: Path) -> None:
    run = fake_run(tmp_path, "x", 0, [70, 60, 50])
    with run.locked():
        for step in range(3):
            results = read_results(run.directory, step)
            forgetful = replace(results, classes=tuple(replace(row, forgetting=None) for row in results.classes))
            run.directory.results(step).write_text(to_json(forgetful))
            run.directory.record(step, "results", run.directory.results(step))
    # Class 1 had 71, 61 and 51; class 2 had 70 (the last of three), 59 and 49; class 3 had 61 and 51.
    assert compare([run]).runs[0].steps[2]["forgetting"].mean == pytest.approx((20 + 21 + 10) / 3)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    one = fake_run(tmp_path, "one", 0, [70, 60, 50])
    with pytest.raises(UserError, match="cannot be compared: they differ in test images"):
        compare([one, fake_run(tmp_path, "two", 0, [70, 60, 50], images=11)])
    with pytest.raises(UserError, match="--against: there is no run named x here; there are one"):
        compare([one], against="x")
    with pytest.raises(UserError, match="step 2 has no results yet; run: eir run-protocol"):
        compare([fake_run(tmp_path, "short", 0, [70, 60])])


def test_runs_of_one_name_and_other_settings_are_no_seeds_of_one_another(tmp_path: Path) -> None:
    one = fake_run(tmp_path, "same", 0, [70, 60, 50])
    other = open_run(tmp_path / "same.yaml", ["seed=1", "train.lr=0.5"], tmp_path / "runs" / "other")
    with other.locked():
        for step in range(3):
            other.directory.step_path(step).mkdir()
            other.directory.results(step).write_text(one.directory.results(step).read_text())
            other.directory.record(step, "results", other.directory.results(step))
    found = compare([one, other], against="other").runs
    assert {row.name: row.seeds for row in found} == {"same-0": [0], "other": [1]}, "told apart by their directories"


def test_a_wrong_grid_is_named_with_its_recipe(tmp_path: Path) -> None:
    path = recipe(tmp_path, "mine")
    with pytest.raises(UserError, match=r"mine\.yaml: --grid method\.treshold=0\.5: unknown key method\.treshold; did you mean"):
        variants(path, ["method.treshold=0.5,0.7"], [])


def eir(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["eir", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    for name, last in (("a_1", 50.0), ("b", 40.0)):
        for seed in (0, 1):
            fake_run(tmp_path, name, seed, [70, 60, last + seed])
    runs = [str(path) for path in sorted((tmp_path / "runs").iterdir())]
    assert eir(monkeypatch, "compare", *runs) == 0
    table = capfd.readouterr().out
    assert all(word in table for word in ("a_1", "50.5 ± 0.7", "-10.0 (-10.0 to -10.0)", "after step 2", "95% interval"))
    assert eir(monkeypatch, "compare", *runs, "--format", "markdown", "--all-steps") == 0
    markdown = capfd.readouterr().out
    assert markdown.count("| run | seeds | memory | old | new | all |") == 3
    assert eir(monkeypatch, "compare", *runs, "--format", "csv", "--all-steps") == 0
    printed = capfd.readouterr().out
    assert len({len(row) for row in csv.reader(io.StringIO(printed))}) == 1
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [(row["step"], row["run"]) for row in rows][-1] == ("2", "b")
    assert float(rows[-1]["all"]) == 40.5
    assert float(rows[-1]["all sd"]) == pytest.approx(0.5**0.5)
    assert [float(rows[-1][key]) for key in ("difference", "difference low", "difference high")] == [-10, -10, -10]
    assert rows[0]["difference"] == ""
    assert eir(monkeypatch, "compare", *runs, "--format", "latex") == 0
    latex = capfd.readouterr().out
    assert r"a\_1 & 2 & --" in latex
    assert r"50.5 $\pm$ 0.7" in latex
    assert eir(monkeypatch, "compare", *runs, "--json") == 0
    assert len(json.loads(capfd.readouterr().out)["runs"]) == 2


@given(widths=st.lists(st.integers(1, 30), min_size=2, max_size=9), screen=st.integers(50, 120))
def test_a_table_wider_than_the_screen_is_cut_between_columns(widths: list[int], screen: int) -> None:
    table = [[chr(97 + n) * width for n, width in enumerate(widths)], [str(n) * width for n, width in enumerate(widths)]]
    parts = _fitting(table, screen)
    assert [cell for part in parts for cell in part[0][1:]] == table[0][1:], "every column once, in order"
    for part in parts:
        assert [row[0] for row in part] == [row[0] for row in table]
        assert _width(part) <= screen or len(part[0]) == 2
        drawn = Console(width=200, file=io.StringIO())
        drawn.print(_drawn(part))
        assert max(map(len, drawn.file.getvalue().splitlines())) == _width(part)  # type: ignore[attr-defined]


def test_seeds_and_sweep_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    plain = str(recipe(tmp_path, "plain"))
    assert eir(monkeypatch, "run-protocol", plain, "--seeds", "0,1") == 0
    out = capfd.readouterr().out
    assert "±" in out
    assert sorted(path.name for path in (tmp_path / "runs").iterdir() if path.name != ".base-steps") == [
        "plain-seed0",
        "plain-seed1",
    ]
    command = [
        "sweep",
        plain,
        "--grid",
        "method.threshold=0.3,0.9",
        "--grid",
        "method.distill.region=all,none",
        "--seeds",
        "0",
        "--json",
    ]
    assert eir(monkeypatch, *command) == 0
    captured = capfd.readouterr()
    names = {row["name"] for row in json.loads(captured.out)["runs"]}
    assert names == {f"plain,threshold={t},distill.region={r}" for t in ("0.3", "0.9") for r in ("all", "none")}
    assert captured.err.count("the same as another run's") == 4, "the base step of seed 0 is there already"
    assert eir(monkeypatch, *command) == 0
    assert json.loads(capfd.readouterr().out) == json.loads(captured.out)
    assert eir(monkeypatch, "sweep", plain, "--grid", "method.threshold=0.3,0.9", "--seeds", "0,1", "--json") == 0
    rows = json.loads(capfd.readouterr().out)["runs"]
    assert {row["name"]: row["seeds"] for row in rows} == {"plain": [0, 1], "plain,threshold=0.9": [0, 1]}
    assert {"runs/plain-seed0", "runs/plain-seed1"} < {run for row in rows for run in row["run_dirs"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run-protocol", str(TINY), "--seeds", "0,0"], "--seeds 0,0: write different numbers"),
        (["run-protocol", str(TINY), "--seeds", "a"], "--seeds a: write different numbers"),
        (["run-protocol", str(TINY), "--seeds", "0,1", "--run-dir", "x"], "--run-dir: names one run"),
        (["sweep", str(TINY), "--grid", "method.threshold"], "--grid method.threshold: write key.path=value,value"),
        (["sweep", str(TINY), "--grid", "method.threshold=2,0.5"], "method.threshold: input should be less than or equal to 1"),
        (["sweep", str(TINY), "--grid", "method.treshold=0.5"], "did you mean method.threshold?"),
        (["sweep", str(TINY), "--grid", "method.threshold=0.5,0.5"], "would share the directory runs/tiny,threshold=0.5-seed0"),
        (["sweep", str(TINY), "--grid", "method.name=[a]"], "method.name"),
        (["sweep", str(TINY), "--grid", "seed=0,1"], "give --seeds 0,1"),
        (["train", str(TINY), "--step", "0", "--set", "protocol.order=seed:²"], "protocol.order: 'seed:²' is unknown"),
        (
            ["train", str(TINY), "--step", "0", "--set", "memory.budget=true"],
            "--set memory.budget=true: memory: budget: true is no value for it",
        ),
        (
            ["train", str(TINY), "--step", "0", "--set", "method.name=ssul", "--set", "model.unknown_class=false"],
            "method ssul needs model.unknown_class: true",
        ),
        (
            ["train", str(TINY), "--step", "0", "--set", "model.new_classifier=unknown"],
            "model.new_classifier unknown needs model.unknown_class: true",
        ),
        (["compare", "nowhere"], "nowhere: no such recipe or run directory"),
        (["compare", str(TINY)], "step 0 has no results yet"),
    ],
)
def test_mistakes(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert eir(monkeypatch, *arguments) == 2
    error = capfd.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_grids() -> None:
    assert parse_grid("a.b=1,x,[1, 2],{c: d}") == ("a.b", [1, "x", [1, 2], {"c": "d"}])
    found = variants(TINY, ["method.threshold=0.3,0.5", "method.mixup_beta=[5, 1]"], ["seed=2"])
    assert [changes[-1] for changes in found] == [
        'name="tiny,threshold=0.3,mixup_beta=5_1"',
        'name="tiny,threshold=0.5,mixup_beta=5_1"',
    ]
    assert load_recipe(TINY, found[1]).seed == 2
    by_method = [load_recipe(TINY, changes) for changes in variants(TINY, ["method.name=eir,mib"], [])]
    assert [(m.name, m.method.name) for m in by_method] == [("tiny", "eir"), ("tiny,mib", "mib")]
    assert by_method[1].model.new_classifier == "balanced"
    mixed = [load_recipe(TINY, changes) for changes in variants(TINY, ["method.threshold=0.5", "method.name=image-replay"], [])]
    assert [(m.name, m.method.model_dump()["threshold"]) for m in mixed] == [("tiny,threshold=0.5,image-replay", 0.5)]


def test_a_recipe_like_another(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: first\n" + TINY.read_text())
    (tmp_path / "b.yaml").write_text("like: a.yaml\nmethod: {paste: hard}\nmemory: {budget: 9}\n")
    (tmp_path / "c.yaml").write_text("like: b.yaml\nmethod: {name: mib}\n")
    b, c = (load_recipe(tmp_path / f"{name}.yaml") for name in "bc")
    assert (b.name, b.method.name, b.memory.budget) == ("b", "eir", 9)
    assert b.method.model_dump()["paste"] == "hard"
    assert b.method.model_dump()["slot"] == 16
    assert (c.name, c.method.name, c.memory.budget, c.model.new_classifier) == ("c", "mib", 9, "balanced")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "f.yaml").write_text("like: ../b.yaml\ntrain: {epochs: 2, base: {epochs: 3}}\n")
    f = load_recipe(tmp_path / "sub" / "f.yaml")
    assert (f.train.epochs, f.train.iterations, f.train.base.epochs, f.train.base.iterations) == (2, None, 3, None)
    (tmp_path / "d.yaml").write_text("like: e.yaml\n")
    (tmp_path / "e.yaml").write_text("like: d.yaml\n")
    with pytest.raises(UserError, match=r"d\.yaml: like: d\.yaml is like this recipe itself"):
        load_recipe(tmp_path / "d.yaml")
    (tmp_path / "f.yaml").write_text("like: nowhere.yaml\n")
    with pytest.raises(UserError, match=r"nowhere\.yaml: No such file"):
        load_recipe(tmp_path / "f.yaml")
