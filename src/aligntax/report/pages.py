"""What pages share: templates and style, the markup of a figure, and what stands in the place of one that cannot be drawn."""

from __future__ import annotations

import html
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, TypeVar

from markupsafe import Markup

from aligntax.core.words import cut, printable

if TYPE_CHECKING:
    import jinja2

Svg = TypeVar("Svg", bound=str | None)


def template(name: str) -> jinja2.Template:
    """A template of the package: what is put into it is escaped, and what it lacks is an error."""
    import jinja2  # here, since the process that draws needs none

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("aligntax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = printable
    return environment.get_template(name)


@cache
def asset(name: str) -> Markup:
    """A style sheet or script of the package, as it goes into a page."""
    return Markup((files("aligntax.report") / "templates" / name).read_text(encoding="utf-8"))  # noqa: S704 - package data


def figure(wide: str, phone: str, label: str) -> Markup:
    """The markup of two SVGs, for a screen and for a phone; ``label`` names them where they are not seen."""
    return Markup(
        '<div class="wide-only" role="img" aria-label="{label}">{wide}</div><div class="narrow" role="img" aria-label="{label}">{phone}</div>'
    ).format(label=label, wide=Markup(wide), phone=Markup(phone))  # noqa: S704 - the drawing engine escapes labels; a test feeds it hostile ones


def attempted(draw: Callable[[], Svg]) -> Svg | str:
    """What ``draw`` makes; where it fails, an SVG that says so: no drawing is worth a run."""
    try:
        return draw()
    except Exception as error:  # noqa: BLE001 - the engine raises what it likes
        said = html.escape(cut(printable(" ".join(str(error).split())), 200))
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="480" height="40"><text y="24" fill="currentColor">This chart could not be drawn: {said}</text></svg>'
