"""The command line as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eircli import __version__
from eircli.cli.app import app, main

TINY = str(Path(__file__).parent / "tiny.yaml")
COMMANDS = [
    "train",
    "build-memory",
    "evaluate",
    "run-protocol",
    "compare",
    "report",
    "sweep",
    "predict",
    "extend",
    "export",
    "init",
    "prepare-data",
    "check-data",
    "import-checkpoint",
    "show-step",
    "show-memory",
    "status",
    "settings",
    "schema",
]


def eir(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["eir", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Path:
    assert eir("run-protocol", TINY, "--run-dir", str(tmp_path / "run"), monkeypatch=monkeypatch) == 0
    capfd.readouterr()
    return tmp_path / "run"


def test_version(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert eir("--version", monkeypatch=monkeypatch) == 0
    assert capfd.readouterr().out == f"eir {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"Example: eir {command} " in result.output


@pytest.mark.parametrize("arguments", [["--help"], ["status", TINY], ["compare", "--help"]])
def test_commands_that_compute_nothing_import_no_torch(arguments: list[str], tmp_path: Path) -> None:
    program = (
        f"import sys; sys.argv = ['eir', *{arguments!r}]; from eircli.cli.app import main\ntry: main()\nexcept SystemExit: pass\n"
    )
    program += "sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_protocol_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """The four commands, sharing one manifest, by recipe, run directory and manifest."""
    run = str(tmp_path / "run")
    assert eir("train", TINY, "--step", "0", "--run-dir", run, monkeypatch=monkeypatch) == 0
    assert eir("build-memory", run, "--step", "1", "--json", monkeypatch=monkeypatch) == 0
    facts = json.loads(capfd.readouterr().out)
    assert sum(facts["per_class"].values()) == facts["exemplars"] <= facts["budget"] == 6
    assert eir("train", f"{run}/manifest.yaml", "--step", "1", monkeypatch=monkeypatch) == 0
    assert eir("evaluate", run, "--step", "1", "--json", "--full-size", "--pictures", "1", monkeypatch=monkeypatch) == 0
    captured = capfd.readouterr()
    results = json.loads(captured.out)
    assert results["step"] == 1
    assert len(list((tmp_path / "run/step-1/pictures").iterdir())) == 1
    assert eir("status", run, "--json", monkeypatch=monkeypatch) == 0
    assert json.loads(capfd.readouterr().out)["next"] == f"eir evaluate {run} --step 0"
    assert eir("train", run, "--step", "1", monkeypatch=monkeypatch) == 0
    assert "trained already" in capfd.readouterr().err


def test_run_protocol_prints_the_same_twice(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for _ in range(2):
        assert eir("run-protocol", str(finished), monkeypatch=monkeypatch) == 0
        outputs.append(capfd.readouterr())
    assert outputs[0] == outputs[1]
    assert outputs[0].err == ""
    assert all(
        word in outputs[0].out for word in ("old", "new", "all", "harmonic", "background", str(finished), "next: eir evaluate")
    )
    assert eir("run-protocol", str(finished), "--json", monkeypatch=monkeypatch) == 0
    (run,) = json.loads(capfd.readouterr().out)["runs"]
    assert (run["name"], run["run_dir"], run["method"], run["seed"]) == ("tiny", str(finished), "eir", 0)
    assert [step["step"] for step in run["steps"]] == [0, 1, 2]
    assert {"old", "new", "all", "harmonic", "old_taken_by_background"} <= run["steps"][2].keys()


def test_tables_hold_every_class(finished: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    for command in ("evaluate", "build-memory", "show-step"):
        assert eir(command, str(finished), "--step", "2", monkeypatch=monkeypatch) == 0
        output = capfd.readouterr().out
        assert all(name in output for name in ("striped red disc", "chequered green square", "plain blue triangle"))
        assert "\x1b" not in output


def test_ids_are_for_scripts(finished: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert eir("show-step", str(finished), "--step", "1", "--split", "val", "--ids", monkeypatch=monkeypatch) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines
    assert all(line.startswith("val-") for line in lines)


def test_voc_15_5_from_its_class_index(
    real_images: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = str(Path(TINY).parent.parent / "configs/voc-15-5-eir.yaml")
    for step, count in ((0, 9568), (1, 2145)):
        index = f"dataset.class_index={real_images / 'voc-index'}"
        assert eir("show-step", recipe, "--step", str(step), "--set", index, "--json", monkeypatch=monkeypatch) == 0
        assert json.loads(capfd.readouterr().out)["parts"]["train"]["images"] == count


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nothing.yaml", "--step", "0"], "nothing.yaml: no such recipe or run directory"),
        (["train", TINY, "--step", "9"], "--step 9: the schedule has the steps 0 to 2"),
        (["train", TINY, "--step", "2"], "which is not trained; run: eir train"),
        (["train", TINY, "--step", "0", "--set", "memory.budgt=3"], "unknown key memory.budgt; did you mean memory.budget?"),
        (["train", TINY, "--step", "0", "--set", "memory.budget=2"], "is less than the 3 old classes"),
        (["train", TINY, "--step", "0", "--device", "cuda:77"], "runtime.device"),
        (["run-protocol", TINY, TINY], "would share the directory"),
        (["run-protocol", TINY, TINY, "--run-dir", "x"], "--run-dir: names one run"),
        (["show-step", "configs/voc-15-1-eir.yaml", "--step", "0"], "dataset.root: data/voc is no folder"),
    ],
)
def test_mistakes_get_one_line_and_exit_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "configs").symlink_to(Path(TINY).parent.parent / "configs")
    monkeypatch.chdir(tmp_path)
    assert eir(*arguments, monkeypatch=monkeypatch) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("eir: ")
    assert message in last
    assert "Traceback" not in captured.err


def test_an_error_inside_a_worker_process_is_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from tests.test_data import label_of, write_pair

    for split in ("training", "validation"):
        for number in range(4):
            write_pair(tmp_path / f"images/{split}/{number}.jpg", tmp_path / f"annotations/{split}/{number}.png", label_of(1, 2))
    (tmp_path / "classes.txt").write_text("a\nb\n")
    picture = tmp_path / "images/training/2.jpg"
    content = picture.read_bytes()
    picture.write_bytes(content[:150] + b"\x00" * (len(content) - 152) + content[-2:])  # whole by its ends, broken inside
    recipe = tmp_path / "own.yaml"
    recipe.write_text(Path(TINY).read_text().replace("2-1", "1-1").replace("workers: 0", "workers: 2"))
    text = recipe.read_text().splitlines()
    recipe.write_text(
        "\n".join(f"dataset: {{kind: folder, root: {tmp_path}}}" if line.startswith("dataset") else line for line in text)
    )
    assert eir("train", str(recipe), "--step", "0", "--run-dir", str(tmp_path / "run"), monkeypatch=monkeypatch) == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("eir: ")
    assert "2.jpg: cannot be read" in last


def test_debug_shows_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["eir", "--debug", "train", str(tmp_path / "nothing.yaml"), "--step", "0"])
    with pytest.raises(ValueError, match="no such recipe"):
        main()


def test_debug_is_an_option_and_no_word_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert eir("train", str(tmp_path / "nothing.yaml"), "--step", "0", "--run-dir", "--debug", monkeypatch=monkeypatch) == 2
    assert capfd.readouterr().err.strip().splitlines()[-1].startswith("eir: ")


def test_a_failed_run_exits_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    overrides = [
        word
        for key in ("lr=1e18", "base.lr=1e18", "clip_grad_norm=null", "base.clip_grad_norm=null")
        for word in ("--set", f"train.{key}")
    ]
    assert eir("train", TINY, "--step", "0", "--run-dir", str(tmp_path / "run"), *overrides, monkeypatch=monkeypatch) == 1
    assert "the loss 'bce' is not finite" in capfd.readouterr().err


def test_a_full_disk_exits_with_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "journal.jsonl")

    monkeypatch.setattr("eircli.engine.journal.Journal.write", full)
    assert eir("train", TINY, "--step", "0", "--run-dir", str(tmp_path / "run"), monkeypatch=monkeypatch) == 2
    assert capfd.readouterr().err.strip().splitlines()[-1].startswith("eir: journal.jsonl: no room left on the disk")
