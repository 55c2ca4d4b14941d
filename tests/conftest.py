"""Where shared data is, what a missing extra means, and logs that lm-eval itself wrote."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Several test processes share the processors; each with threads of its own on all of them would be slower than one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent
REQUIRE_EXTRAS = "ALIGNTAX_REQUIRE_EXTRAS"


def shared_folder() -> Path | None:
    """``ALIGNTAX_SHARED``, or the folder ``shared`` beside the checkout."""
    named = os.environ.get("ALIGNTAX_SHARED")
    found = Path(named) if named else ROOT.parent / "shared"
    return found if (found / "golden").is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    found = shared_folder()
    if found is None:
        pytest.skip("no shared data: set ALIGNTAX_SHARED, or put the folder 'shared' beside the checkout")
    return found


@pytest.fixture(scope="session")
def golden(shared: Path) -> Callable[[str], Any]:
    return lambda name: json.loads((shared / "golden" / name).read_text())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test first, so that it does not run alone at the end."""
    items.sort(key=lambda item: "made_again" not in item.name)


def need(module: str, extra: str) -> None:
    """Skip without an extra; fail where every extra was asked for."""
    try:
        importlib.import_module(module)
    except ImportError:
        if os.environ.get(REQUIRE_EXTRAS):
            pytest.fail(f"{module} is missing although {REQUIRE_EXTRAS} is set; install the extra {extra}")
        pytest.skip(f"{module} is not installed: pip install 'aligntax[{extra}]'", allow_module_level=True)


@pytest.fixture(scope="session")
def lm_eval_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``base``, ``candidate`` and ``candidate-chat``, written by lm-eval on small random models."""
    for module, extra in (("lm_eval", "eval"), ("transformers", "models"), ("torch", "cpu")):
        need(module, extra)
    out = tmp_path_factory.mktemp("lm-eval")
    script = Path(__file__).parent / "support" / "make_lm_eval_logs.py"
    done = subprocess.run([sys.executable, str(script), str(out)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture
def aligntax(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the console script in a folder of its own."""

    def run(*arguments: object, cwd: Path = tmp_path, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "aligntax", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False, **options)

    return run
