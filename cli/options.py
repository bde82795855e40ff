"""Options that several commands share, and the completion of their values."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem, get_completion_class

from cli.console import CONSOLE, print_text
from leukemia_data.caches.opening import LocalCopiesChoice
from leukemia_data.registry import did_you_mean
from leukemia_data.sources.reading_options import SUBJECT_SOURCES, ReadingOptions
from leukemia_data.sources.source_choice import DEFAULT_CACHE_ROOT, source_place
from leukemia_data.stores.url import Url, is_url, parse_location

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]
OptionValue: TypeAlias = Any
"""Value of an option that goes to the library's parameter of the same name, which says its type."""
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
    """Complete the names of the TOML files in a folder of a package; where none fits, the shell completes files."""

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


def _known_model(context: click.Context, parameter: click.Parameter, model: str) -> str:
    from leukemia_models.networks.registry import model_names

    known = model_names()
    if model not in known:
        raise click.BadParameter(f"unknown model {model!r}{did_you_mean(model, known)}; known are {', '.join(known)}")
    return model


def complete_run(incomplete: str) -> list[CompletionItem]:
    """Complete folders of runs: those below ``runs``, or below the folder that is typed; else any folder."""
    folder = Path(incomplete if incomplete.endswith("/") else Path(incomplete).parent) if incomplete else _RUNS_DIR
    found = [path.parent for mark in RUN_MARKS for path in [*folder.glob(f"*/{mark}"), *folder.glob(f"*/*/{mark}")]]
    return or_paths(sorted({path.as_posix() for path in found}), incomplete, kind="dir")


def or_paths(names: list[str], incomplete: str, kind: str = "file") -> list[CompletionItem]:
    """Return the names that go on as `incomplete` begins, and let the shell complete paths where there are none."""
    # bash takes the paths only if nothing follows; the other shells offer both.
    return [CompletionItem(incomplete, type=kind), *(CompletionItem(n) for n in names if n.startswith(incomplete))]


class PlaceType(click.ParamType[Any]):
    """A path of this machine or a URL; no store is accessed.

    `read` returns the place that a text names, `problem` why a path cannot be used, or an empty text.
    """

    def __init__(
        self, read: Callable[[str], Any], problem: Callable[[Path], str] = lambda path: "", *, is_folder: bool = True
    ) -> None:
        self.name = "directory|url" if is_folder else "path|url"
        self._read, self._problem, self._completed = read, problem, "dir" if is_folder else "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - click's own
        """Return the place; an empty text is refused, which would be the current folder."""
        if value == "":
            self.fail("It is empty. Is a variable of the shell not set? The current folder is '.'.", param, ctx)
        place = self._read(value) if isinstance(value, str) else value
        problem = self._problem(place) if isinstance(place, Path) else ""
        if problem:
            self.fail(f"Directory {str(place)!r} {problem}.", param, ctx)
        return place

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Let the shell complete a path, but none that begins as a URL."""
        return [] if is_url(incomplete) else [CompletionItem(incomplete, type=self._completed)]


def _no_folder(path: Path) -> str:
    if path.is_dir():
        return ""
    return "is a file" if path.exists() else "does not exist"


LOCATION = PlaceType(parse_location, lambda path: "is a file" if path.is_file() else "")
"""A folder, which may be missing, or a URL such as ``s3://bucket/caches``."""
SOURCE = PlaceType(source_place, is_folder=False)
"""A file or a folder, or a URL that can be read."""


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
        if param.name in ("run", "runs"):
            return complete_run(incomplete)
        return super().shell_complete(ctx, param, incomplete)


FILE = LocalPath(path_type=Path, dir_okay=False)
FOLDER = LocalPath(path_type=Path, file_okay=False)
SEED = click.IntRange(0, 2**63 - 1)


def given_options() -> dict[str, str]:
    """Return the command's parameters that the user set, as they are written: ``--lr`` for ``lr``, or ``SOURCE``."""
    context = click.get_current_context()
    return {
        str(each.name): each.opts[0] if isinstance(each, click.Option) else each.human_readable_name
        for each in context.command.params
        if each.expose_value and context.get_parameter_source(str(each.name)) not in (None, ParameterSource.DEFAULT)
    }


def with_options(*options: Decorator) -> Decorator:
    """Return a decorator that adds options to a command, in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def as_one(name: str, make: Callable[..., object], parameters: Sequence[str], *options: Decorator) -> Decorator:
    """Return a decorator that adds options to a command, which gets ``make(**parameters)`` of them as `name`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_value(*args: OptionValue, **kwargs: OptionValue) -> OptionValue:
            value = make(**{parameter: kwargs.pop(parameter) for parameter in parameters})
            return command(*args, **{name: value}, **kwargs)

        return with_options(*options)(with_value)

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, for scripts.")
cache_root_option = click.option(
    "--cache", "cache_root", type=FOLDER, default=DEFAULT_CACHE_ROOT, help="Folder that holds the caches."
)
cache_location_option = click.option(
    "--cache",
    "cache_root",
    type=LOCATION,
    default=DEFAULT_CACHE_ROOT,
    help="Folder that holds the caches, or its URL.",
)
cache_location_argument = click.argument("cache", required=False, type=LOCATION, metavar="[CACHE|URL]")
size_filter_option = click.option("--size", "size_px", type=int, help="Choose the cache of this size.")
chosen_cache_options = with_options(
    as_one(
        "location",
        lambda cache, cache_root: cache or cache_root,
        ("cache", "cache_root"),
        cache_location_argument,
        cache_location_option,
    ),
    size_filter_option,
)
"""The command gets the place as ``location``, and ``size_px``."""

recipe_option = click.option(
    "--recipe", default="report-a", shell_complete=complete_recipe, help="Preset name or recipe file (.toml)."
)
augment_option = click.option(
    "--augment",
    default="flips",
    shell_complete=complete_augmentation,
    help="Random changes of training images: none, flips, report-a, report-a-geometry, report-b, or a file (.toml).",
)
model_option = click.option(
    "--model",
    default="resnet18",
    callback=_known_model,
    shell_complete=complete_model,
    help="Name of a network, see `ltrain models`.",
)

source_argument = click.argument("source", nargs=-1, type=SOURCE)
table_options = with_options(
    click.option(
        "--root",
        type=PlaceType(source_place, _no_folder),
        help="Folder or URL that the paths in CSV tables start from (default: the table's own).",
    ),
    click.option(
        "--allow-outside",
        is_flag=True,
        help="Take files that a CSV table names outside its root too (absolute paths, .., links).",
    ),
)


def _warn_of_old_variable(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """Warn of the earlier name of the variable, which the library still reads."""
    if value is None and os.environ.get("LDATA_STAGE") and not os.environ.get("LDATA_LOCAL_COPIES"):
        CONSOLE.warn("$LDATA_STAGE is deprecated and will go: set $LDATA_LOCAL_COPIES")
    return value


local_copies_option = click.option(
    "--local-copies",
    "copies_dir",
    metavar="DIR",
    type=FOLDER,
    callback=_warn_of_old_variable,
    help="Folder for local copies of shards of a cache at a URL.  [default: $LDATA_LOCAL_COPIES, else in the user's "
    "caches]",
)
local_copies_options = as_one(
    "copies",
    lambda copies_dir, copies_gb: LocalCopiesChoice(copies_dir, copies_gb),
    ("copies_dir", "copies_gb"),
    local_copies_option,
    click.option(
        "--local-copies-gb",
        "copies_gb",
        metavar="N",
        type=click.FloatRange(0, min_open=True),
        help="Room for local copies, in GB.  [default: half of what the disk has without them]",
    ),
)
"""The command gets a :class:`LocalCopiesChoice` as ``copies``."""

READING_NAMES = frozenset(field.name for field in fields(ReadingOptions))
"""Parameters of the options that say what the folders, names and columns of a source mean."""
reading_options = as_one(
    "reading",
    ReadingOptions.parse,
    tuple(READING_NAMES),
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
        help="Where subjects come from: C-NMC file names only, the folders that name no class, or nothing.",
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
        "--positive",
        metavar="CLASS",
        help="Of two classes the one whose recall is the sensitivity; training may need it.",
    ),
)
"""The command gets a :class:`ReadingOptions` as ``reading``."""
