"""The command ``ltrain``: with options alone it trains; subcommands judge and predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.lazy_group import LazyGroup
from cli.options import augment_option, option_name, seed_type
from leukemia_data.errors import UsageError

_COMMANDS = {
    "evaluate": ("cli.ltrain.evaluate", "Judge a run on one part of its split."),
    "predict": ("cli.ltrain.predict", "Predict a part of the split, or image files."),
    "preview-augment": ("cli.ltrain.preview_augment", "Draw what training sees: cells after random augmentation."),
}
_MODELS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


@click.group(
    "ltrain",
    cls=LazyGroup,
    lazy_commands=_COMMANDS,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND [ARGS]...]",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="leukemia-cells", prog_name="ltrain")
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("cache"),
    show_default=True,
    help="A cache, or a folder in which only one cache fits --size.",
)
@click.option("--size", "size_px", type=int, help="Choose the cache of this size.")
@click.option("--model", "model_name", type=click.Choice(_MODELS), default="resnet18", show_default=True)
@click.option("--epochs", default=30, show_default=True, type=click.IntRange(1))
@click.option(
    "--split", default="subject", show_default=True, help="subject, given, fold:K/N, or image (then patient-mixed)."
)
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(2), help="Of all processes together.")
@augment_option
@click.option(
    "--sampling",
    type=click.Choice(["uniform", "class-balanced", "subject-balanced"]),
    default="uniform",
    show_default=True,
    help="Each image once an epoch; or each class, or each subject, equally often.",
)
@click.option("--lr", default=0.005, show_default=True, help="Highest learning rate of SGD.")
@click.option("--momentum", default=0.9, show_default=True)
@click.option("--weight-decay", default=1e-4, show_default=True)
@click.option("--schedule", type=click.Choice(["cosine", "step", "constant"]), default="cosine", show_default=True)
@click.option("--warmup-epochs", default=0.0, show_default=True, help="Epochs in which the learning rate rises from 0.")
@click.option(
    "--normalize",
    default="train",
    show_default=True,
    help="train: exact mean and std of the training images; or six numbers, mean R,G,B and std R,G,B.",
)
@click.option("--seed", default=0, show_default=True, type=seed_type, help="Of weights, order, augmentation and split.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--amp/--no-amp", default=False, help="Mixed precision, on CUDA only.")
@click.option(
    "--residency",
    type=click.Choice(["auto", "mapped", "ram", "device"]),
    default="auto",
    show_default=True,
    help="Where the pixels are kept: auto takes the device if they fit, else memory if they fit, else maps the files.",
)
@click.option(
    "--num-threads", type=click.IntRange(1), help="Threads that prepare batches.  [default: one a core, at most 4]"
)
@click.option(
    "--save-minutes",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Save within an epoch when the last checkpoint is this old; 0: after every step.",
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of the run.  [default: runs/...]")
@click.option("--resume", is_flag=True, help="Go on with the run in --out where it stopped.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON on stdout.")
@click.pass_context
def main(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - click hands over what is declared above
    """Train a ResNet on a cache and judge it, or use a finished run.

    Every result carries its kind of split. The default keeps all cells of a person on one side; expect 0.83 to 0.91
    weighted F1 from it on C-NMC. `--split image` mixes patients and its numbers say nothing about new ones.

    \b
    Examples:
      ltrain --cache cache --size 128 --model resnet18 --epochs 10
      ltrain --size 224 --model resnet50 --split fold:1/5 --out runs/r50-fold1
      ltrain --size 128 --augment report-b --sampling class-balanced --epochs 50
      ltrain --out runs/r50-fold1 --resume
      torchrun --nproc-per-node 2 --no-python ltrain --size 128 --epochs 10
      ltrain evaluate runs/r50-fold1 --part valid
      ltrain predict runs/r50-fold1 new-cells --out predictions.csv
    """
    given = frozenset(name for name in options if _is_given(context, name))
    if context.invoked_subcommand is not None:
        if given:
            names = ", ".join(sorted(option_name(name) for name in given))
            raise UsageError(
                f"{names}: options before {context.invoked_subcommand} are for training; write them after it"
            )
        return
    # torch takes seconds to load: not for --help.
    from cli.ltrain.prepare import TrainRequest
    from cli.ltrain.train import train

    train(TrainRequest(given=given, **options))


def _is_given(context: click.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source is not click.core.ParameterSource.DEFAULT
