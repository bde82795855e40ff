"""Types of parameters that are places: paths of this machine, or URLs in object stores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from cli.completion import complete_run
from leukemia_data.records.record import ImagePlace
from leukemia_data.stores.url import Location, Url, is_url, parse_location

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


def source_place(text: str) -> ImagePlace:
    """Return a path, or a URL together with what reads it."""
    location = parse_location(text)
    if not isinstance(location, Url):
        return location
    # Loads fsspec, which takes as long as all of a build with nothing to do.
    from leukemia_data.stores.object_store import stored_url

    return stored_url(location)
