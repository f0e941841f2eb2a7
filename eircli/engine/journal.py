"""The journal of a step: a JSON line every few iterations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eircli.common.distributed import is_main_process
from eircli.common.io import whole_lines, write_text


class Journal:
    """Appends entries to a file, in the main process alone.

    Args:
        iteration: where training resumes; later entries are dropped, since they will be written again.
    """

    def __init__(self, path: Path, iteration: int) -> None:
        self.path = path
        if not is_main_process():
            return
        kept = [line for line in whole_lines(path) if json.loads(line)["iteration"] <= iteration]
        write_text(path, "".join(kept))

    def write(self, **entry: Any) -> None:
        """Append one entry."""
        if not is_main_process():
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
