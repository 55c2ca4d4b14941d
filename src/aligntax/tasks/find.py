"""Tasks by name: our suites, suites of a folder, and (extra ``eval``) everything in lm-eval's registry."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from aligntax.core.errors import InputError
from aligntax.core.items import Task
from aligntax.core.words import printable
from aligntax.tasks import SUITES
from aligntax.tasks.suite import Folder, suites

LM_EVAL = "lm-eval:"


def find_tasks(names: Sequence[str], include: Sequence[Path] = ()) -> list[Task]:
    """The tasks behind names, groups opened, each once and in the order of the names.

    Args:
        names: ``lab`` (all of it), ``lab/addition`` or ``lab_addition``, a task or group of an included folder, ``lm-eval:NAME``.
        include: folders of suites, as lm-eval's ``--include_path``.

    Raises:
        InputError: on a name that nothing has; near names are suggested.
        MissingExtraError: if lm-eval is needed and not installed.
    """
    known = _everything(include)
    found: dict[str, Task] = {}
    for name in filter(None, (n.strip() for n in names)):
        for task in _named(name, known, include):
            found.setdefault(task.name, task)
    if not found:
        raise InputError("no tasks were named; for example: --tasks lab")
    return list(found.values())


def _everything(include: Sequence[Path]) -> Folder:
    known = Folder()
    for folder in (*(p for p in sorted(SUITES.iterdir()) if p.is_dir()), *include):
        if not folder.is_dir():
            raise InputError(f"{printable(str(folder))} is no folder of tasks")
        one = suites(folder)
        known.tasks |= one.tasks
        known.groups |= one.groups
        known.others |= one.others
    return known


def _named(name: str, known: Folder, include: Sequence[Path]) -> Sequence[Task]:
    if name.startswith(LM_EVAL):
        return _of_lm_eval(name.removeprefix(LM_EVAL), include)
    plain = name.replace("/", "_")
    if plain in known.groups:
        return [task for member in known.groups[plain] for task in _named(member, known, include)]
    if plain in known.tasks:
        return [known.tasks[plain]]
    if name in known.others:  # lm-eval may read it, and would run the code beside it: nobody is led there by a slip
        raise InputError(
            f"{known.others[name]}; if it is a task for lm-eval, name it {LM_EVAL}{printable(name)} (which runs the code that its folder holds)"
        )
    near = get_close_matches(plain, [*known.tasks, *known.groups], n=3, cutoff=0.5)
    raise InputError(
        f"no task {printable(repr(name))}; "
        + (f"did you mean {' or '.join(near)}? " if near else f"groups that ship: {', '.join(known.groups)}; ")
        + f"tasks of lm-eval are named {LM_EVAL}NAME"
    )


def _of_lm_eval(name: str, include: Sequence[Path]) -> Sequence[Task]:
    from aligntax.tasks.lm_eval import registered

    return registered(name, include)
