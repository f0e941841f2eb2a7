"""`eir run-protocol`: all steps in order."""

from __future__ import annotations

from eircli.common.progress import Say
from eircli.reports.show import Results
from eircli.run.main_process import is_done
from eircli.run.run import Workbench
from eircli.stages.build_memory import build_memory
from eircli.stages.evaluate import evaluate
from eircli.stages.train import check_sharing, train


def run_protocol(bench: Workbench, say: Say) -> list[Results]:
    """Build memory, train and evaluate every step; what is recorded and intact is not done again."""
    results = []
    for step in range(len(bench.schedule)):
        check_sharing(bench, step)
    for step in range(len(bench.schedule)):
        if step > 0 and bench.manifest.keeps and not is_done(bench, step, "bank"):
            build_memory(bench, step, say)
        if not is_done(bench, step, "checkpoint"):
            train(bench, step, say)
        results.append(evaluate(bench, step, say))
    return results
