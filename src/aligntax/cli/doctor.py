"""What is installed and what is missing."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, requires, version
from re import match

_LIGHT = "core"


def requirements() -> dict[str, list[str]]:
    """Distribution names by extra, from the installed package's own metadata; ``core`` for what is always needed."""
    out: dict[str, list[str]] = {_LIGHT: []}
    for line in requires("aligntax") or ():
        name, _, marker = line.partition(";")
        extra = match(r".*extra == ['\"]([^'\"]+)['\"]", marker)
        found = match(r"[A-Za-z0-9_.-]+", name.strip())
        if found:
            out.setdefault(extra[1] if extra else _LIGHT, []).append(found[0])
    return out


def report_lines() -> list[str]:
    """Lines to print: versions, and per extra what is missing with the command that adds it."""
    lines = [f"aligntax {version('aligntax')}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    for extra, names in requirements().items():
        found, missing = [], []
        for name in names:
            try:
                found.append(f"{name} {version(name)}")
            except PackageNotFoundError:
                missing.append(name)
        if not missing:
            lines.append(f"{extra}: complete ({', '.join(found)})")
        elif extra == _LIGHT:
            lines.append(f"{extra}: missing {', '.join(missing)}; install again with: pip install aligntax")
        else:
            lines.append(f"{extra}: missing {', '.join(missing)}; add with: pip install 'aligntax[{extra}]'")
    return lines
