"""Options that several commands share, and the completion of their values."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from cli.console import CONSOLE, print_text
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.reading_options import SUBJECT_SOURCES, ReadingOptions
from leukemia_data.sources.source_choice import source_place
from leukemia_data.stores.url import Location, Url, is_url, parse_location

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
RUN_MARKS = ("run.json", "plan.toml", "kfold.json")
"""Files by which folders of runs, of plans and of cross-validations are known."""
_RUNS_DIR = Path("runs")
_INSTALL = {
    "bash": """add the line  eval "$({name} completion bash)"  to ~/.bashrc""",
    "zsh": """add the line  eval "$({name} completion zsh)"  to ~/.zshrc, behind compinit""",
    "fish": "run  {name} completion fish > ~/.config/fish/completions/{name}.fish",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(_INSTALL)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which SHELL completes commands, options, paths and names.

    Its second line says how to install it.

    \b
    Examples:
      ldata completion bash
      ltrain completion zsh
    """
    program = context.find_root().command
    name = str(program.name)
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(program, {}, name, f"_{name.upper()}_COMPLETE")
    first, _, rest = (script.source_template % script.source_vars()).partition("\n")
    print_text(f"{first}\n# To install it, {_INSTALL[shell].format(name=name)}\n{rest}")


def shipped_names(package: str, folder: str) -> Completer:
    """Complete the names of the TOML files in a folder of a package; where none fits, the shell completes files.

    >>> complete = shipped_names("leukemia_data", "operations/presets")
    """

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        names = (Path(file.name) for file in files(package).joinpath(folder).iterdir())
        return or_paths(sorted(name.stem for name in names if name.suffix == ".toml"), incomplete)

    return complete


complete_recipe = shipped_names("leukemia_data", "operations/presets")
complete_augmentation = shipped_names("leukemia_data", "augmenting/augmentations")
complete_plan = shipped_names("leukemia_models", "training/plans")


def complete_model(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the names of networks."""
    # Registers them; loads no torch.
    from leukemia_models.networks.registry import model_names

    return [CompletionItem(name) for name in model_names() if name.startswith(incomplete)]


def complete_run(incomplete: str) -> list[CompletionItem]:
    """Complete folders of runs: those below ``runs``, or below the folder that is typed; else any folder."""
    folder = Path(incomplete if incomplete.endswith("/") else Path(incomplete).parent) if incomplete else _RUNS_DIR
    found = [path.parent for mark in RUN_MARKS for path in [*folder.glob(f"*/{mark}"), *folder.glob(f"*/*/{mark}")]]
    return or_paths(sorted({path.as_posix() for path in found}), incomplete, kind="dir")


def or_paths(names: list[str], incomplete: str, kind: str = "file") -> list[CompletionItem]:
    """Return the names that go on as `incomplete` begins, and let the shell complete paths where there are none."""
    # bash takes the paths only if nothing follows; the other shells offer both.
    return [CompletionItem(incomplete, type=kind), *(CompletionItem(n) for n in names if n.startswith(incomplete))]


_RUN_PARAMETERS = ("run", "runs")


class LocationType(click.ParamType[Location]):
    """A folder, or a URL such as ``s3://bucket/caches``; nothing is asked of the store."""

    name = "directory|url"

    def convert(self, value: str | Location, param: click.Parameter | None, ctx: click.Context | None) -> Location:
        """Read an argument; a folder must not be a file."""
        _require_text(self, value, param, ctx)
        location = parse_location(value) if isinstance(value, str) else value
        if isinstance(location, Path) and location.is_file():
            self.fail(f"Directory {str(location)!r} is a file.", param, ctx)
        return location

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete folders; a URL is left as it is."""
        return _paths("dir", incomplete)


class LocalPath(click.Path):
    """A path of this machine. A URL is refused: as a path it would be a folder named ``s3:``."""

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - click has no type for it
        """Read an argument; ``file://`` is a path."""
        if isinstance(value, str) and is_url(value):
            location = parse_location(value)
            if isinstance(location, Url):
                self.fail(f"{location} is an address, and a path of this machine is needed here.", param, ctx)
            value = location
        return super().convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete paths, and folders of runs for parameters that mean a run."""
        if param.name in _RUN_PARAMETERS:
            return complete_run(incomplete)
        return super().shell_complete(ctx, param, incomplete)


class SourceType(click.ParamType[ImagePlace]):
    """A file or folder of this machine, or a URL that can be read."""

    name = "path|url"

    def convert(self, value: str | ImagePlace, param: click.Parameter | None, ctx: click.Context | None) -> ImagePlace:
        """Read an argument."""
        _require_text(self, value, param, ctx)
        return source_place(value) if isinstance(value, str) else value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete files and folders; a URL is left as it is."""
        return _paths("file", incomplete)


class RootType(SourceType):
    """A folder that exists, or a URL."""

    name = "directory|url"

    def convert(self, value: str | ImagePlace, param: click.Parameter | None, ctx: click.Context | None) -> ImagePlace:
        """Read an argument; what is on this machine must exist."""
        place = super().convert(value, param, ctx)
        if isinstance(place, Path) and not place.is_dir():
            what = "is a file" if place.exists() else "does not exist"
            self.fail(f"Directory {str(place)!r} {what}.", param, ctx)
        return place

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete folders; a URL is left as it is."""
        return _paths("dir", incomplete)


def _paths(kind: str, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete a path, but none that begins as a URL."""
    return [] if is_url(incomplete) else [CompletionItem(incomplete, type=kind)]


def _require_text(
    kind: click.ParamType[Any], value: object, param: click.Parameter | None, ctx: click.Context | None
) -> None:
    """Refuse an empty text, as of a shell's variable that is not set: as a path it would be the current folder."""
    if value == "":
        kind.fail("It is empty. Is a variable of the shell not set? The current folder is '.'.", param, ctx)


DEFAULT_CACHE_ROOT = Path("cache")

seed_type = click.IntRange(0, 2**63 - 1)


def option_name(parameter: str) -> str:
    """The option as the user writes it: ``--lr`` for ``lr``, ``--size`` for ``size_px``."""
    return "--" + parameter.removeprefix("as_").removesuffix("_px").removesuffix("_name").replace("_", "-")


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, for scripts.")

cache_root_option = click.option(
    "--cache",
    "cache_root",
    type=LocalPath(path_type=Path, file_okay=False),
    default=DEFAULT_CACHE_ROOT,
    show_default=True,
    help="Folder that holds the caches.",
)

cache_location_option = click.option(
    "--cache",
    "cache_root",
    type=LocationType(),
    default=DEFAULT_CACHE_ROOT,
    show_default=True,
    help="Folder that holds the caches, or its URL.",
)

cache_location_argument = click.argument("cache", required=False, type=LocationType(), metavar="[CACHE|URL]")

size_filter_option = click.option("--size", "size_px", type=int, help="Choose the cache of this size.")

recipe_option = click.option(
    "--recipe",
    "recipe_name",
    default="report-a",
    show_default=True,
    shell_complete=complete_recipe,
    help="Preset name or recipe file (.toml).",
)

augment_option = click.option(
    "--augment",
    default="flips",
    show_default=True,
    shell_complete=complete_augmentation,
    help="Random changes of training images: none, flips, report-a, report-a-geometry, report-b, or a file (.toml).",
)

source_argument = click.argument("source", nargs=-1, type=SourceType())

root_option = click.option(
    "--root",
    type=RootType(),
    help="Folder or URL that the paths in CSV tables start from (default: the table's own).",
)

allow_outside_option = click.option(
    "--allow-outside",
    is_flag=True,
    help="Take files that a CSV table names outside its root too (absolute paths, .., links).",
)


def _warn_of_old_variable(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """Warn of the earlier name of the variable, which the library still reads."""
    if value is None and os.environ.get("LDATA_STAGE") and not os.environ.get("LDATA_LOCAL_COPIES"):
        CONSOLE.warn("$LDATA_STAGE is deprecated and will go: set $LDATA_LOCAL_COPIES")
    return value


local_copies_option = click.option(
    "--local-copies",
    metavar="DIR",
    type=LocalPath(path_type=Path, file_okay=False),
    callback=_warn_of_old_variable,
    help="Folder for local copies of shards of a cache at a URL.  [default: $LDATA_LOCAL_COPIES, else in the user's "
    "caches]",
)

local_copies_gb_option = click.option(
    "--local-copies-gb",
    metavar="N",
    type=click.FloatRange(0, min_open=True),
    help="Room for local copies, in GB.  [default: half of what the disk has without them]",
)

_READING_OPTIONS = (
    click.option(
        "--class-level",
        metavar="N|name",
        help="Which folder names the class: 1 the first below SOURCE, -1 the one that holds the image; name: C-NMC "
        "file names.",
    ),
    click.option("--classes", metavar="A,B,...", help="The classes in the order of their labels; others are left out."),
    click.option("--merge", metavar="NEW=A+B", multiple=True, help="Make one class of several, repeatable."),
    click.option(
        "--exclude", metavar="GLOB", multiple=True, help="Pass over files and folders below SOURCE, repeatable."
    ),
    click.option(
        "--subject-pattern", metavar="REGEX", help="Find the subject in a path: the group subject, or the first group."
    ),
    click.option(
        "--subject-from",
        type=click.Choice(SUBJECT_SOURCES),
        help="Subjects are told by C-NMC file names only, by the folders that name no class, or by nothing.",
    ),
    click.option(
        "--label-column", metavar="COLUMN", help="Column of labels in tables; A,B,... is one-hot, none is none."
    ),
    click.option("--subject-column", metavar="COLUMN", help="Column of subjects in tables."),
    click.option("--split-column", metavar="COLUMN", help="Column of splits in tables."),
    click.option("--path-column", metavar="COLUMN", help="Column of image paths in tables."),
    click.option(
        "--split-folders", metavar="train=A,test=B+C", help="The folders that mean train, valid and test; no others do."
    ),
    click.option(
        "--positive", metavar="CLASS", help="Of two classes the one whose recall is the sensitivity; training may ask."
    ),
)
READING_NAMES = frozenset(field.name for field in fields(ReadingOptions))
"""Parameters of the options that say what the folders, names and columns of a source mean."""


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which gets them together as ``reading``, a ReadingOptions."""

    @functools.wraps(command)
    def with_reading(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the command's own
        texts = {name: kwargs.pop(name) for name in READING_NAMES}
        return command(*args, reading=ReadingOptions.parse(**texts), **kwargs)

    for option in reversed(_READING_OPTIONS):
        with_reading = option(with_reading)
    return with_reading
