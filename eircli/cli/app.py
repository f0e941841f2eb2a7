"""The command `eir`: one thin function per command. No torch is imported before a command runs."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Annotated, Literal

import typer

from eircli import __version__
from eircli.cli.bench import bench_command
from eircli.cli.many_runs import compare_command, run_protocol_command, sweep_command
from eircli.cli.options import Again, AsJson, Device, Overrides, Recipe, RunDirectory, Step, open_bench, say
from eircli.common.errors import OtherProcessFailed, RunFailed, UserError
from eircli.common.torchrun_env import launched

app = typer.Typer(
    name="eir",
    help="Continual semantic segmentation by enhanced instance replay: learn classes step by step, keep the old ones.",
    epilog="First try: eir run-protocol configs/shapes-6-2-finetune.yaml configs/shapes-6-2-eir.yaml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"eir {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, help="Print the version and exit.", is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    pass


@app.command("train", epilog="Example: eir train configs/shapes-6-2-eir.yaml --step 0")
def train_command(
    recipe: Recipe,
    step: Step,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    device: Device = None,
    again: Again = False,
) -> None:
    """Train one step; a run that was interrupted goes on where it stopped."""
    bench = open_bench(recipe, overrides, run_dir, device)
    from eircli.run.main_process import at_work
    from eircli.stages.train import train

    with at_work(bench):
        train(bench, step, say, again)
    say(f"next: eir evaluate {bench.run.path} --step {step}")


@app.command("build-memory", epilog="Example: eir build-memory configs/shapes-6-2-eir.yaml --step 1")
def build_memory_command(
    recipe: Recipe,
    step: Step,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    again: Again = False,
    as_json: AsJson = False,
) -> None:
    """Build what a step keeps of the old classes: a bank of instances or whole images, or prototypes."""
    bench = open_bench(recipe, overrides, run_dir)
    from eircli.reports import tables as report
    from eircli.run.main_process import at_work, by_main
    from eircli.stages.build_memory import bank_facts, build_memory

    with at_work(bench):
        build_memory(bench, step, say, again)
        facts = by_main(bench, lambda: bank_facts(bench, step))
    if as_json:
        print(json.dumps(facts))
        return
    report.stdout().print(report.bank_table(facts))
    say(f"memory: {facts['path']} ({facts['file_bytes']:,} bytes as a file)")


@app.command("evaluate", epilog="Example: eir evaluate configs/shapes-6-2-eir.yaml --step 2 --pictures 4")
def evaluate_command(
    recipe: Recipe,
    step: Step,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    device: Device = None,
    full_size: Annotated[
        bool, typer.Option("--full-size", help="Whole images at their own size instead of the paper's crops.")
    ] = False,
    pictures: Annotated[int, typer.Option("--pictures", min=0, help="Draw this many test images with truth and prediction.")] = 0,
    again: Again = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate a trained step: IoU per class, old / new / all, forgetting, what background has taken."""
    bench = open_bench(recipe, overrides, run_dir, device)
    from eircli.reports import tables as report
    from eircli.reports.pictures import draw_pictures
    from eircli.run.main_process import at_work, by_main
    from eircli.stages.evaluate import evaluate

    with at_work(bench):
        results = evaluate(bench, step, say, full_size, again)
        drawn = by_main(bench, lambda: draw_pictures(bench, step, pictures)) if pictures else []
    if as_json:
        print(json.dumps(results))
    else:
        console = report.stdout()
        console.print(report.results_table(results, bench.manifest.name))
        for line in report.summary_lines(results):
            console.print(line, highlight=False)
    say(f"results: {bench.run.results(step, full_size)}")
    if drawn:
        say(f"pictures: {drawn[0].parent}")


app.command("run-protocol", epilog="Example: eir run-protocol configs/shapes-6-2-finetune.yaml configs/shapes-6-2-eir.yaml")(
    run_protocol_command
)
app.command("compare", epilog="Example: eir compare runs/shapes-6-2-*; or: eir compare configs/shapes-6-2-*.yaml --seeds 0,1,2")(
    compare_command
)
app.command("bench", epilog="Example: eir bench configs/voc-15-5-eir.yaml --set dataset.root=/path/to/VOC2012")(bench_command)
app.command("sweep", epilog="Example: eir sweep configs/shapes-6-2-eir.yaml --grid method.threshold=0.5,0.7,0.9 --seeds 0,1,2")(
    sweep_command
)


@app.command("import-checkpoint", epilog="Example: eir import-checkpoint deeplab.pth --into configs/voc-15-5-eir.yaml --step 0")
def import_checkpoint_command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A state dict of torchvision's DeepLabV3, or of DKD's or EIR's release.")
    ],
    into: Annotated[Path, typer.Option("--into", metavar="RUN", help="The recipe or run directory that takes it.")],
    step: Step,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    again: Again = False,
    as_json: AsJson = False,
) -> None:
    """Make another program's weights a step's checkpoint."""
    bench = open_bench(into, overrides, run_dir)
    from eircli.run.main_process import at_work
    from eircli.stages.import_checkpoint import import_checkpoint

    if launched().processes > 1:
        raise UserError("eir import-checkpoint: there is nothing to share out; run it without torchrun")
    with at_work(bench):
        facts = import_checkpoint(bench, step, file, again)
    if as_json:
        print(json.dumps(facts))
        return
    for what, counts in (("taken", facts["tensors"]), ("left out", facts["left_out"])):
        print(f"{what}: {', '.join(f'{count} {part}' for part, count in counts.items()) or 'nothing'}")
    print(f"{facts['naming']} → {facts['checkpoint']}")
    for note in facts["notes"]:
        print(f"note: {note}")
    say(f"next: eir evaluate {bench.run.path} --step {step}")


@app.command("show-step", epilog="Example: eir show-step configs/voc-15-5-eir.yaml --step 1 --split train --ids")
def show_step_command(
    recipe: Recipe,
    step: Step,
    split: Annotated[Literal["train", "val", "test"], typer.Option("--split", help="Whose image ids --ids prints.")] = "train",
    ids: Annotated[
        bool, typer.Option("--ids", help="Print the ids of the split's images, one per line, and nothing else.")
    ] = False,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Show what a step consists of: its classes by name, its images, how many of them hold each class."""
    bench = open_bench(recipe, overrides, run_dir, look_only=True)
    from eircli.reports import tables as report
    from eircli.reports.show import describe_step

    if ids:
        bench.check_step(step)
        source = bench.dataset.train if split == "train" else bench.dataset.val
        for position in bench.positions(step, split):
            print(source.ids[position])
        return
    facts = describe_step(bench, step)
    if as_json:
        print(json.dumps(facts))
    else:
        report.stdout().print(report.step_table(facts))


@app.command("status", epilog="Example: eir status runs/shapes-6-2-eir-seed0")
def status_command(recipe: Recipe, overrides: Overrides = None, run_dir: RunDirectory = None, as_json: AsJson = False) -> None:
    """Show what of a run is done, and what is next."""
    bench = open_bench(recipe, overrides, run_dir)
    from eircli.reports import tables as report
    from eircli.reports.show import status

    facts = status(bench)
    if as_json:
        print(json.dumps(facts))
        return
    report.stdout().print(report.status_table(facts))
    print(f"next: {facts['next'] or 'nothing, the run is complete'}")


def main() -> None:
    """Run the command line: exit code 0; 1 for a failed run; 2 for what the user can mend; 130 for an interrupt."""
    try:
        _command()
    except SystemExit as end:
        if launched().processes == 1:
            raise
        # Threads of the process group may still run, which Python's own way out does not always survive.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(end.code or 0))


def _command() -> None:
    try:
        with _among_processes():
            _run()
    except OtherProcessFailed:
        sys.exit(1)
    except Exception as error:
        if "--debug" in sys.argv[1:]:
            raise
        say(f"eir: {_one_line(error)}")
        sys.exit(2 if isinstance(error, UserError) or _no_room(error) else 1)


def _run() -> None:
    try:
        app()
    except SystemExit as end:
        if end.code == 130:
            say("interrupted; the same command goes on from here")
        raise


@contextmanager
def _among_processes() -> Iterator[None]:
    """Join the processes that torchrun has started, if it has; the main one alone prints, but for an error that is its own."""
    here = launched()
    if here.processes == 1:
        yield
        return
    from eircli.engine.distributed import joined

    with joined(here):
        if here.rank == 0:
            yield
            return
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield


def _no_room(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _one_line(error: Exception) -> str:
    if isinstance(error, UserError):
        # A data loader's worker sends its error with the traceback before it.
        return str(error).strip().splitlines()[-1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
    if isinstance(error, RunFailed):
        return str(error)
    if _no_room(error):
        return f"{getattr(error, 'filename', None) or 'disk'}: no room left on the disk; free some and run the command again"
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]} (eir --debug … shows the traceback)"
