"""The layers of docs/design.md hold: imports point down, and light commands load nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "aligntax"

# Lower numbers may not import higher ones; packages of one number do not import each other.
LAYER = {
    "core": 0, "stats": 1, "metrics": 2, "tasks": 2, "models": 2, "store": 2, "flow": 3,
    "atlas": 4, "predict": 4, "reduce": 4, "lab": 4, "report": 5, "api": 6, "testing": 6, "examples": 7, "cli": 7, "__init__": 8, "__main__": 8,
}  # fmt: skip
ALLOWED = {
    "core": {"pydantic", "yaml"},
    "stats": {"numpy", "scipy"},
    "flow": {"numpy", "scipy", "pydantic", "yaml"},
    "store": {"numpy", "duckdb", "yaml", "pydantic", "zstandard"},
    "report": {"altair", "vl_convert", "jinja2", "markupsafe", "rich"},
    "models": {
        "torch",
        "transformers",
        "peft",
        "huggingface_hub",
        "jinja2",
        "numpy",
        "pydantic",
        "httpx2",
        "lm_eval",
        "safetensors",
        "pynvml",
    },
    "lab": {"torch", "transformers", "tokenizers", "filelock", "safetensors", "trl", "datasets", "numpy", "pydantic", "yaml"},
    "tasks": {"datasets", "jinja2", "lm_eval", "numpy", "pydantic", "yaml"},  # the suites bring the loader that lm-eval calls
    "atlas": {"numpy", "pydantic", "yaml"},
    "predict": {"torch", "numpy", "scipy"},
    "cli": {"typer", "rich"},
}


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, at run time) of every import, those under TYPE_CHECKING marked."""
    tree = ast.parse(path.read_text())
    typing_only = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and isinstance(branch.test, ast.Name) and branch.test.id == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node not in typing_only) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append((node.module or "", node not in typing_only))
    return found


def package_of(path: Path) -> str:
    part = path.relative_to(SOURCE).parts[0]
    return part.removesuffix(".py")


FILES = sorted(SOURCE.rglob("*.py"))


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 30


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    own = package_of(path)
    for module, _ in imports(path):
        if not module.startswith("aligntax."):
            continue
        other = module.split(".")[1]
        if other != own:
            assert LAYER[other] < LAYER[own], f"{path.name} of {own} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_libraries_by_layer(path: Path) -> None:
    own = package_of(path)
    if own not in ALLOWED:
        return
    for module, _ in imports(path):
        top = module.split(".")[0]
        if top not in sys.stdlib_module_names and top != "aligntax":
            assert top in ALLOWED[own], f"{path.name} of {own} imports {top}"


def test_one_package_inside_store_does_not_import_itself_in_a_circle() -> None:
    graph = {}
    for path in FILES:
        name = ".".join(["aligntax", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")
        top_level = {n.module for n in ast.parse(path.read_text()).body if isinstance(n, ast.ImportFrom) and n.module}
        graph[name] = top_level
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name in done or name not in graph:
            return
        for other in graph[name]:
            visit(other, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def test_importing_aligntax_loads_no_library() -> None:
    loaded = run("import sys, aligntax; print(' '.join(sys.modules))").split()
    assert not {"numpy", "scipy", "torch", "pandas", "duckdb", "pydantic", "altair", "rich"} & set(loaded)


def test_comparing_logs_loads_no_torch_and_no_pandas() -> None:
    code = "import sys, aligntax.api, aligntax.flow.diff, aligntax.report.page, aligntax.store.run; print(' '.join(sys.modules))"
    assert not {"torch", "pandas", "transformers", "altair", "lm_eval"} & set(run(code).split())
