"""A click group that loads a command's module when it is used, and turns the library's errors into one line."""

from __future__ import annotations

import errno
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import click

from cli.output import escape_what_streams_lack
from cli.signals import ending_on_signals
from leukemia_data.errors import LeukemiaError, UsageError
from leukemia_data.files.text import printable


class LazyGroup(click.Group):
    """Group whose commands are named by module, so that ``--help`` and light commands start fast.

    Parameters
    ----------
    lazy_commands
        Command name -> (module, short help); ``module:attribute`` where the module's click command is not ``command``.
    """

    def __init__(self, *args: Any, lazy_commands: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self._lazy_commands = lazy_commands

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - click's own signature
        """Run as a program does, or with arguments as tests do; a signal to end becomes one line on stderr."""
        is_program = not args and kwargs.get("args") is None
        if is_program:
            escape_what_streams_lack()
        with ending_on_signals(is_program=is_program):
            return super().main(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the work."""
        return list(self._lazy_commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in self._lazy_commands:
            return None
        module, _, attribute = self._lazy_commands[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute or "command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, without importing them."""
        rows = [(name, short_help) for name, (_, short_help) in self._lazy_commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the group's own options; a wrong one becomes one line on stderr."""
        with _one_line_errors():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        """Run the command; an expected error becomes one line on stderr and its exit code."""
        with _one_line_errors():
            return super().invoke(ctx)


# Faults of the machine that calls on open files report without the file's name.
_MACHINE_FAULTS = frozenset(
    getattr(errno, name)
    for name in ("EIO", "ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EMFILE", "ENFILE", "ENOMEM", "ESTALE", "ETIMEDOUT")
    if hasattr(errno, name)
)


class _OneLineError(click.ClickException):
    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line; on a stream that declares ASCII too, where click would write UTF-8."""
        super().show(file or sys.stderr)


class _WrongUsage(_OneLineError):
    exit_code = UsageError.exit_code


class _FailedWork(_OneLineError):
    exit_code = LeukemiaError.exit_code


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn errors that a user can cause into one line on stderr and an exit code."""
    try:
        yield
    except UsageError as error:
        raise _WrongUsage(printable(str(error))) from error
    except LeukemiaError as error:
        raise _FailedWork(printable(str(error))) from error
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        # click's own form of it takes four lines.
        hint = f" (see `{error.ctx.command_path} --help`)" if error.ctx is not None else ""
        raise _WrongUsage(printable(f"{error.format_message()}{hint}")) from error
    except OSError as error:
        # A file that may not be read or written, or a disk that fails; the rest is a fault of the program.
        if error.filename is None and error.errno not in _MACHINE_FAULTS:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        raise _FailedWork(printable(f"{where}{error.strerror}")) from error
    except MemoryError as error:
        raise _FailedWork("not enough memory: end other programs, or ask for less at a time") from error
    except RuntimeError as error:
        # Python's word for a system that gives no more memory or threads.
        if "can't start new thread" not in str(error):
            raise
        raise _FailedWork("the system gives no more threads or memory: end other programs") from error
    except KeyboardInterrupt:
        raise _FailedWork("interrupted") from None
