"""One kind of file that the programs read: sound examples, how they are mutated, and who reads them.

A reader may refuse a file by one of the project's errors. If it takes it, what it says must hold together: the
assertions of readers are what its users count on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from .fuzz_mutations import Mutate


@dataclass(frozen=True)
class FileKind:
    """One kind of file.

    Attributes
    ----------
    name
        For reports.
    seeds
        Sound files.
    mutate
        Makes a hostile one of them.
    read
        Reads it as the programs do: raises what they raise, and AssertionError where their answer is no answer.
    share
        How often it is tried, compared with the others.
    """

    name: str
    seeds: tuple[bytes, ...]
    mutate: Mutate
    read: Callable[[bytes], None]
    share: int = 4


def run_command(group: Any, *arguments: object) -> None:
    """Run a command here: one that fails must say why in one line, and nothing may steer the terminal."""
    result = CliRunner().invoke(group, [str(argument) for argument in arguments], env={"LDATA_SOURCE": None})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in (0, 1, 2), result.exit_code
    assert not result.exit_code or any(line.startswith("Error: ") for line in result.stderr.splitlines())
    assert "\x1b" not in result.output, f"control characters reach the terminal: {result.output!r}"


def replacing(path: Path, read: Callable[[], None]) -> Callable[[bytes], None]:
    """A reader of one of the sound files: puts the bytes in its place, reads, and puts it back."""
    sound = path.read_bytes()

    def replace_and_read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read()
        finally:
            path.write_bytes(sound)

    return replace_and_read


def kind_at(name: str, path: Path, mutate: Mutate, read: Callable[[], None], share: int = 4) -> FileKind:
    return FileKind(name, (path.read_bytes(),), mutate, replacing(path, read), share)
