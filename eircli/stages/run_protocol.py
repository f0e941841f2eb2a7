"""`eir run-protocol`: all steps in order."""

from __future__ import annotations

from eircli.progress import Say
from eircli.stages.build_memory import build_memory
from eircli.stages.evaluate import evaluate
from eircli.stages.show import Results
from eircli.stages.train import train
from eircli.workbench import Workbench


def run_protocol(bench: Workbench, say: Say) -> list[Results]:
    """Build memory, train and evaluate every step; what is recorded and intact is not done again."""
    run, results = bench.run, []
    for step in range(len(bench.schedule)):
        if step > 0 and bench.manifest.keeps and not run.done(step, "bank"):
            build_memory(bench, step, say)
        if not run.done(step, "checkpoint"):
            train(bench, step, say)
        results.append(evaluate(bench, step, say))
    return results
