"""A seed in, a layout with known truth out."""

from __future__ import annotations

import random

from .clutter import add_clutter
from .cnmc import compose_cnmc
from .draft import Draft
from .flat import compose_flat
from .layout import Layout
from .questions import KIND
from .table import compose_table
from .tree import compose_tree

_COMPOSERS = {"tree": compose_tree, "cnmc": compose_cnmc, "table": compose_table, "flat": compose_flat}


def generate_layout(rng: random.Random, seed: int = 0) -> Layout:
    """Draw a layout; the same state of `rng` gives the same one. `seed` is only noted in it."""
    kind = rng.choices(list(KIND), list(KIND.values()))[0]
    draft = Draft(rng, kind)
    _COMPOSERS[kind](draft)
    if kind in ("tree", "cnmc"):
        add_clutter(draft)
    return draft.finished(seed)


def layout_of_seed(seed: int) -> Layout:
    """The layout that a seed stands for."""
    return generate_layout(random.Random(f"layout {seed}"), seed)
