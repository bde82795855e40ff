"""The part of ``ltrain models`` that needs torch."""

from __future__ import annotations

from cli.output import format_table, print_json, print_text
from leukemia_models.networks.registry import DESIGNS, ModelCost, model_cost

_HEADER = ("model", "parameters", "multiply-adds", "stages (px)", "reports")


def list_models(size_px: int, *, as_json: bool) -> None:
    """Print every network with its cost at an image size."""
    costs = {name: model_cost(name, size_px) for name in DESIGNS}
    if as_json:
        print_json([_as_json(name, cost) for name, cost in costs.items()])
        return
    rows = [_row(name, cost) for name, cost in costs.items()]
    numbers = format_table(_HEADER, rows).splitlines()
    descriptions = ["", *(design.description for design in DESIGNS.values())]
    for line, description in zip(numbers, descriptions, strict=True):
        print_text(f"{line}  {description}".rstrip())
    print_text(f"\nOf one image of {size_px} x {size_px} px; 2 classes.")


def _row(name: str, cost: ModelCost) -> list[str]:
    return [
        name,
        f"{cost.parameters / 1e6:.2f} M",
        f"{cost.multiply_adds / 1e9:.2f} G",
        " ".join(map(str, cost.stage_sizes_px)),
        " ".join(DESIGNS[name].reports) or "-",
    ]


def _as_json(name: str, cost: ModelCost) -> dict[str, object]:
    design = DESIGNS[name]
    return {"name": name, **cost._asdict(), "reports": design.reports, "description": design.description}
