"""What tests of predictions share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from aligntax.models.hf import HFModel


@pytest.fixture(scope="module")
def base() -> Iterator[HFModel]:
    """The smallest embedded base model."""
    from aligntax.models.references import open_model, parse  # here, since not every test of this folder needs torch

    opened: Any = open_model(parse("lab:base-w32"))
    yield opened
    opened.close()
