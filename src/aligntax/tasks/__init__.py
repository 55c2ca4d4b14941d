"""Items: where they come from. Our own suites are lm-eval tasks (YAML beside JSON lines), so that lm-eval runs them too."""

from __future__ import annotations

from pathlib import Path

SUITES = Path(__file__).parent / "suites"
"""Folder of the suites that ship with the package; ``lm_eval --include_path`` takes it."""
