"""Numbers and verdicts in words: the one place where units become text. Plain strings, no markup.

Text from models and logs is hostile; ``printable`` makes it harmless for a terminal before it is shown anywhere.
"""

from __future__ import annotations

import json
import unicodedata
from math import ceil, floor, isfinite, log10

VERDICT_WORDS = {
    "tax": "tax",
    "gain": "gain",
    "no_tax": "no tax",
    "undetermined": "undetermined",
    None: "-",
}

VERDICT_MEANING = {
    "tax": "a loss is established",
    "gain": "an improvement is established",
    "no_tax": "a loss as large as the margin is ruled out",
    "undetermined": "the data settle neither a change nor its absence",
}

# Characters that move the cursor, hide text or reorder it: C0, C1, bidi controls, zero-width and other formats.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str, *, keep_newlines: bool = False) -> str:
    """``text`` with every character that could act on a terminal or reorder a line shown as an escape."""
    if text.isascii() and text.isprintable():
        return text
    kept = "\n" if keep_newlines else ""
    return "".join(
        ch
        if ch in kept or unicodedata.category(ch) not in _UNSAFE_CATEGORIES
        else {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(ch, f"\\x{ord(ch):02x}" if ord(ch) < 256 else f"\\u{ord(ch):04x}")
        for ch in text
    )


def cut(text: str, limit: int) -> str:
    """At most ``limit`` characters, the cut marked with what is missing."""
    return text if len(text) <= limit else f"{text[:limit]} … (+{len(text) - limit:,} characters)"


def safe_json(text: str) -> str:
    """JSON that a terminal may show: characters of model texts that act on one as escapes; the same data."""
    if text.isascii():
        return text  # JSON has escaped the rest
    return "".join(ch if ch == "\n" or unicodedata.category(ch) not in _UNSAFE_CATEGORIES else json.dumps(ch)[1:-1] for ch in text)


_SHOWN = {"fraction": (100.0, "points"), "seconds": (1000.0, "ms")}
"""How units are shown: by what factor their values are multiplied, and what the unit is called then."""


def is_fraction(unit: str) -> bool:
    return unit == "fraction"


def scale_of(unit: str) -> float:
    """What a value is multiplied with to be shown."""
    return _SHOWN.get(unit, (1.0, ""))[0]


def number(x: float, decimals: int) -> str:
    """Fixed decimals, never a negative zero."""
    text = f"{x:,.{decimals}f}"
    return text[1:] if text.startswith("-") and not any(c in "123456789" for c in text) else text


def decimals_for(error: float | None, *, least: int = 1, most: int = 6) -> int:
    """Decimals that an error justifies: its first significant digit, within bounds."""
    if error is None or not isfinite(error) or error <= 0:
        return max(least, 1)
    return min(max(-floor(log10(error)), least), most)


def value_text(x: float | None, unit: str, error: float | None = None) -> str:
    """A level, for example ``29.8 %`` or ``0.412``; ``-`` for null."""
    if x is None:
        return "-"
    if is_fraction(unit):
        return f"{number(100 * x, decimals_for(None if error is None else 100 * error, least=1, most=3))} %"
    factor = scale_of(unit)
    if error is None and 0 < abs(x) < 0.1 and factor == 1:
        return f"{x:.3g}"  # nothing says how many digits count
    return number(factor * x, decimals_for(None if error is None else factor * error, least=1))


def change_number(x: float, unit: str, error: float | None = None) -> str:
    """A signed change without its unit; fractions in points."""
    factor = scale_of(unit)
    if error is None and 0 < abs(x) < 0.1 and factor == 1:
        return f"{x:+.3g}"
    scaled, scaled_error = factor * x, None if error is None else factor * error
    text = number(scaled, decimals_for(scaled_error, least=1, most=4))
    return text if text.startswith("-") else f"+{text}"


def change_unit(unit: str) -> str:
    return _SHOWN.get(unit, (1.0, unit))[1]


def size_text(x: float, unit: str, error: float | None = None) -> str:
    """An unsigned amount with its unit, for example ``1.3 points``."""
    return f"{change_number(abs(x), unit, error).lstrip('+')} {change_unit(unit)}"


def exact_text(x: float, unit: str) -> str:
    """An amount that somebody chose, such as a margin, with all the digits it has."""
    number_ = f"{scale_of(unit) * x:.6g}"
    return f"{number_} point" if is_fraction(unit) and number_ == "1" else f"{number_} {change_unit(unit)}"


def interval_text(low: float | None, high: float | None, unit: str, error: float | None = None) -> str:
    if low is None or high is None:
        return "no interval"
    return f"[{change_number(low, unit, error)}, {change_number(high, unit, error)}]"


def p_text(p: float | None) -> str:
    """A p-value for people: never 0, never a false precision."""
    if p is None:
        return "-"
    if p < 1e-4:
        return "< 0.0001" if p == 0 else f"{p:.0e}".replace("e-0", "e-")
    return f"{p:.4f}" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def percent(x: float, decimals: int = 1) -> str:
    return f"{number(100 * x, decimals)} %"


def level_text(level: float) -> str:
    """A confidence level with the digits it has: 0.999 is not 100 %."""
    return f"{100 * level:.6g} %"


def count_text(x: float) -> str:
    """Planned counts are stored as floats and shown rounded up."""
    return f"{ceil(x - 1e-9):,}"


def items_text(n: int, word: str = "item") -> str:
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def label_text(value: object) -> str | None:
    """A label as text; None where the log has none (null, or an empty string)."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
