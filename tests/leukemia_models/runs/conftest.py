from __future__ import annotations

from collections.abc import Iterator

import pytest

from ...blank_figures import blank_figures


@pytest.fixture(scope="module", autouse=True)
def _quick_figures() -> Iterator[None]:
    with blank_figures():
        yield
