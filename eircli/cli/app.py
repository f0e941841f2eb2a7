"""The command `eir`: its commands, one file each, and how it ends. No torch is imported before a command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated

import typer

from eircli import __version__
from eircli.cli.exit_codes import FAILED, INTERRUPTED, exit_code, one_line
from eircli.cli.options import say
from eircli.common.errors import OtherProcessFailed
from eircli.common.torchrun_env import launched

COMMANDS = (
    "init",
    "train",
    "build-memory",
    "evaluate",
    "run-protocol",
    "compare",
    "report",
    "bench",
    "sweep",
    "predict",
    "extend",
    "export",
    "prepare-data",
    "check-data",
    "import-checkpoint",
    "show-step",
    "show-memory",
    "status",
    "settings",
    "schema",
)
"""The commands in the order of the help; each module defines `command` and `EXAMPLE`."""

app = typer.Typer(
    name="eir",
    help="Continual semantic segmentation by enhanced instance replay: learn classes step by step, keep the old ones.",
    epilog="First try: eir run-protocol configs/shapes-6-2-finetune.yaml configs/shapes-6-2-eir.yaml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for name in COMMANDS:
    module = import_module(f"eircli.cli.{name.replace('-', '_')}")
    app.command(name, epilog=f"Example: {module.EXAMPLE}")(module.command)


@dataclass
class RootOptions:
    """The options before the command, as they were given last."""

    debug: bool = False


ROOT = RootOptions()


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
    ROOT.debug = debug


def main() -> None:
    """Run the command line; `exit_codes` says how it ends."""
    # Read when torch is loaded: threads that wait give up their core, instead of spinning where others want to work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
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
    ROOT.debug = False
    try:
        with _among_processes():
            _run()
    except OtherProcessFailed:
        sys.exit(FAILED)
    except Exception as error:
        if ROOT.debug:
            raise
        say(f"eir: {one_line(error)}")
        sys.exit(exit_code(error))


def _run() -> None:
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            say("interrupted; the same command goes on from here")
        raise


@contextmanager
def _among_processes() -> Iterator[None]:
    """Join the processes that torchrun has started, if it has; the main one alone prints, but for an error that is its own."""
    here = launched()
    if here.processes == 1:
        yield
        return
    from eircli.common.distributed import process_group

    with process_group(here):
        if here.rank == 0:
            yield
            return
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield
