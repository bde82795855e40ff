"""What ``ltrain models`` prints."""

from __future__ import annotations

from cli.output import format_table, print_json, print_text
from leukemia_models.networks.registry import NetworkDescription, describe_models

_HEADER = ("model", "parameters", "multiply-adds", "stages (px)", "reports")


def list_models(size_px: int, *, as_json: bool) -> None:
    """Print every network with its cost at an image size."""
    models = describe_models(size_px)
    if as_json:
        print_json([model.to_dict() for model in models])
        return
    numbers = format_table(_HEADER, [_row(model) for model in models]).splitlines()
    descriptions = ["", *(model.description for model in models)]
    for line, description in zip(numbers, descriptions, strict=True):
        print_text(f"{line}  {description}".rstrip())
    print_text(f"\nOf one image of {size_px} x {size_px} px; 2 classes.")


def _row(model: NetworkDescription) -> list[str]:
    return [
        model.name,
        f"{model.cost.parameters / 1e6:.2f} M",
        f"{model.cost.multiply_adds / 1e9:.2f} G",
        " ".join(map(str, model.cost.stage_sizes_px)),
        " ".join(model.reports) or "-",
    ]
