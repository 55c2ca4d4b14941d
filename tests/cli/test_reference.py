"""docs/cli.md is what the program says of itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_reference_is_up_to_date() -> None:
    # In a process of its own: the width and the colours of a terminal change what help prints.
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "FORCE_COLOR", "GITHUB_ACTIONS")} | {
        "NO_COLOR": "1",
        "TERM": "dumb",
    }
    done = subprocess.run(
        [sys.executable, "-m", "aligntax.cli.reference"], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == done.stdout, "write it again: python -m aligntax.cli.reference > docs/cli.md"
    for command in ("diff", "measure", "run", "audit", "export", "lm-eval", "lab serve"):
        assert f"# aligntax {command}\n" in written
