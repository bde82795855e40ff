"""``ltrain models``: the networks by name, and what they cost."""

from __future__ import annotations

import click

from cli.options import json_option


@click.command("models")
@click.option("--size", "size_px", default=224, show_default=True, help="Side of the images.")
@json_option
def command(size_px: int, as_json: bool) -> None:
    """List the networks that --model takes: parameters, multiply-adds of one image, sizes of the stages.

    Parameters are those for two classes, multiply-adds those of convolutions and the linear layer. `reports` says which
    of the two reports has a network.

    \b
    Examples:
      ltrain models
      ltrain models --size 128 --json
    """
    # torch takes seconds to load: not for --help.
    from cli.ltrain.models_work import list_models

    list_models(size_px, as_json=as_json)
