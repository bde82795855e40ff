"""The group that a program is: lazy commands, one-line errors, signals."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO, Any

import click
from click.shell_completion import CompletionItem

from cli.console import CONSOLE, Verbosity, escape_what_streams_lack, logged_to_stderr
from leukemia_data.errors import InterruptionError, LeukemiaError, UsageError
from leukemia_data.files.text import printable
from leukemia_data.registry import did_you_mean

# SIGTERM comes from batch systems, SIGHUP from a terminal that is closed, SIGBREAK from Windows' Ctrl-Break.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
# Until the callback that swallowed a signal has returned.
_AGAIN_AFTER_S = 0.02
_IS_WINDOWS = os.name == "nt"
_AT_ONCE = b"Error: interrupted twice: ended at once\n"


def interrupted_exit_code(number: int = signal.SIGINT) -> int:
    """Return the exit code of a program that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number


class _Ending:
    """Handler of all signals: the first raises KeyboardInterrupt, a second one terminates the process immediately."""

    def __init__(self) -> None:
        self.is_interrupted = False
        self.is_over = False
        self._came_too_early: bool | None = None
        self.number: int | None = None
        self.exit_code = LeukemiaError.exit_code

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._came_too_early is not None:
            self._came_too_early = True
            return
        if self.is_interrupted or self.is_over:
            # Whatever waits, such as a thread on a network that hangs, is left to the system.
            if not self.is_over:
                os.write(2, _AT_ONCE)
            _end_children()
            os._exit(self.exit_code)
        self.is_interrupted = True
        self.number = number
        self.exit_code = interrupted_exit_code(number)
        raise KeyboardInterrupt

    def come_again(self) -> None:
        """Send the signal once more: its KeyboardInterrupt was raised where Python prints and ignores it."""
        self.is_interrupted = False
        self._came_too_early = True
        # On a busy machine a timer may end before its start has returned, and so be within the same callback.
        while self._came_too_early:
            self._came_too_early = False
            timer = threading.Timer(_AGAIN_AFTER_S, _send_to_self, (self.number,))
            timer.daemon = True
            timer.start()
        self._came_too_early = None

    def code_of(self, done: SystemExit) -> int | str | None:
        """Return the exit code; work that failed after a signal was interrupted, whatever error it became."""
        is_failure = done.code in (LeukemiaError.exit_code, interrupted_exit_code())
        if is_failure and self.number is not None:
            return interrupted_exit_code(self.number)
        return done.code


def _send_to_self(number: int) -> None:
    """Send a signal to this process, from any thread."""
    if _IS_WINDOWS:
        # There `os.kill` ends the process without its handlers.
        signal.raise_signal(number)
    else:
        # Not to this thread alone: it must interrupt the main thread's waiting.
        os.kill(os.getpid(), number)


def _end_children() -> None:
    """Kill the child processes, except those that clean up after this one and end by themselves."""
    # In the middle of whatever was interrupted anything may fail, and the end must not.
    with suppress(Exception):
        import psutil

        for child in psutil.Process().children(recursive=True):
            if not any("resource_tracker" in word for word in child.cmdline()):
                child.kill()


@contextmanager
def ending_on_signals(*, is_program: bool) -> Iterator[None]:
    """Turn the first signal into KeyboardInterrupt for the block; a second signal terminates immediately.

    A SystemExit with the code of failed work leaves the block with :func:`interrupted_exit_code` if a signal came.
    Signals with another handler, and those ignored as under ``nohup``, stay so.

    With `is_program` the process ends after the block: later signals end it silently with the exit code that it
    has. Otherwise the earlier handlers are restored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = _Ending()
    numbers = [signal.Signals[name] for name in _NAMES if hasattr(signal, name)]
    untouched = (signal.SIG_DFL, signal.default_int_handler)
    earlier = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) in untouched}
    for number in earlier:
        signal.signal(number, ending)
    earlier_hook = sys.unraisablehook

    def on_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is KeyboardInterrupt and ending.is_interrupted:
            ending.come_again()
        else:
            earlier_hook(unraisable)

    sys.unraisablehook = on_unraisable
    try:
        yield
    except SystemExit as done:
        done.code = ending.code_of(done)
        ending.exit_code = done.code if isinstance(done.code, int) else ending.exit_code
        raise
    finally:
        ending.is_over = True
        sys.unraisablehook = earlier_hook
        if not is_program:
            for number, handler in earlier.items():
                signal.signal(number, handler)


RENAMED_OPTIONS = {"--stage-dir": "--local-copies", "--stage-gb": "--local-copies-gb"}
"""Options by the names of earlier versions, which all commands take and no help names."""
_VERBOSITY = {
    "quiet": "Print no notes and draw no bars; cautions, errors and results stay.",
    "verbose": "Print the tracebacks of errors, what libraries log, progress without a terminal, and the time taken.",
}
_FLAGS = ("-q", "--quiet", "-v", "--verbose")
_ENDING_OPTIONS = ("-h", "--help", "--version")


class MainGroup(click.Group):
    """Group whose commands are imported when they are used, so that ``--help`` and light commands start fast.

    Parameters
    ----------
    lazy_commands
        Command name -> (``module:attribute``, short help).
    default_command
        The command of options without one, and of an empty command line.
    """

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - click's own
        lazy_commands: Mapping[str, tuple[str, str]],
        default_command: str | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        context = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True}
        super().__init__(*args, context_settings=context, **kwargs)
        self._lazy_commands, self._default_command = lazy_commands, default_command
        self.params.extend(_verbosity_options())

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - click's own signature
        """Run as a program does, or with arguments as tests do; an interrupting signal becomes one line on stderr."""
        is_program = not args and kwargs.get("args") is None
        if is_program:
            escape_what_streams_lack()
        with ending_on_signals(is_program=is_program), CONSOLE.at(Verbosity.NORMAL):
            return super().main(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the work."""
        return list(self._lazy_commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module, and give the command ``-q`` and ``-v``."""
        if cmd_name not in self._lazy_commands:
            return None
        module, _, attribute = self._lazy_commands[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute or "command")
        if not any(parameter.name in _VERBOSITY for parameter in command.params):
            command.params.extend(_verbosity_options())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is refused with the name that is most like it."""
        if args[0] not in self._lazy_commands and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}{did_you_mean(args[0], self._lazy_commands)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, without importing them."""
        rows = [(name, short_help) for name, (_, short_help) in self._lazy_commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands from the table, and options: those of the default command too."""
        if not incomplete.startswith("-"):
            names = [name for name in self._lazy_commands if name.startswith(incomplete)]
            return [CompletionItem(name, help=self._lazy_commands[name][1]) for name in names]
        items = click.Command.shell_complete(self, ctx, incomplete)
        default = self.get_command(ctx, self._default_command) if self._default_command is not None else None
        if default is not None:
            items += default.shell_complete(click.Context(default, parent=ctx, resilient_parsing=True), incomplete)
        return list({item.value: item for item in items}.values())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the group's own options; a wrong one becomes one line on stderr."""
        with _one_line_errors():
            return super().parse_args(ctx, self._with_default(_renamed(args, ctx), ctx))

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        """Run the command; an expected error becomes one line on stderr and its exit code."""
        with _one_line_errors():
            return super().invoke(ctx)

    def _with_default(self, args: list[str], ctx: click.Context) -> list[str]:
        position = next((number for number, word in enumerate(args) if word not in _FLAGS), len(args))
        rest = args[position:]
        is_named = bool(rest) and (not rest[0].startswith("-") or rest[0] in _ENDING_OPTIONS)
        is_completion_of_a_name = not rest and ctx.resilient_parsing
        if self._default_command is None or is_named or is_completion_of_a_name:
            return args
        self._require_no_command_behind(rest, ctx)
        return [*args[:position], self._default_command, *rest]

    def _require_no_command_behind(self, rest: Sequence[str], ctx: click.Context) -> None:
        """Refuse the default command's options before another command, as in ``--epochs 3 kfold --folds 5``."""
        default = self.get_command(ctx, str(self._default_command))
        if ctx.resilient_parsing or default is None or self._lazy_commands.keys().isdisjoint(rest):
            return
        # A command's name may also be the value of an option, as in `--out train`.
        inner = click.Context(default, parent=ctx, ignore_unknown_options=True)
        words = default.make_parser(inner).parse_args(list(rest))[1]
        command = next((word for word in words if word in self._lazy_commands), None)
        if command is not None:
            names = [word.partition("=")[0] for word in rest[: rest.index(command)] if word.startswith("--")]
            before = f"options before {command} are for {self._default_command}"
            raise UsageError(f"{', '.join(sorted(names))}: {before}; write them after it")


def _verbosity_options() -> list[click.Option]:
    return [
        click.Option([f"-{name[0]}", f"--{name}"], is_flag=True, expose_value=False, callback=_set_verbosity, help=text)
        for name, text in _VERBOSITY.items()
    ]


def _set_verbosity(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    chosen = Verbosity(parameter.name)
    if not value or ctx.resilient_parsing or CONSOLE.verbosity is chosen:
        return
    if CONSOLE.verbosity is not Verbosity.NORMAL:
        raise UsageError("--quiet and --verbose exclude each other")
    # The command's own context ends before its error is printed.
    program = ctx.find_root()
    program.with_resource(CONSOLE.at(chosen))
    if chosen is Verbosity.VERBOSE:
        program.with_resource(logged_to_stderr())
        program.with_resource(_timed())


@contextmanager
def _timed() -> Iterator[None]:
    started_s = time.monotonic()
    try:
        yield
    finally:
        CONSOLE.note(f"took {time.monotonic() - started_s:.1f} s")


def _renamed(args: Sequence[str], ctx: click.Context) -> list[str]:
    end = args.index("--") if "--" in args else len(args)
    words = [arg.partition("=") for arg in args[:end]]
    if not ctx.resilient_parsing:
        for name in sorted(RENAMED_OPTIONS.keys() & {name for name, _, _ in words}):
            CONSOLE.warn(f"{name} is deprecated and will go: write {RENAMED_OPTIONS[name]}")
    return [*(f"{RENAMED_OPTIONS.get(name, name)}{sign}{value}" for name, sign, value in words), *args[end:]]


# Faults of the machine that calls on open files report without the file's name.
_MACHINE_FAULTS = frozenset(
    getattr(errno, name)
    for name in ("EIO", "ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EMFILE", "ENFILE", "ENOMEM", "ESTALE", "ETIMEDOUT")
    if hasattr(errno, name)
)


class _OneLineError(click.ClickException):
    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(printable(message))
        self.exit_code = exit_code  # type: ignore[misc] # click reads it from the instance

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line; on a stream that declares ASCII too, where click would write UTF-8."""
        super().show(file or sys.stderr)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn errors that a user can cause into one line on stderr and an exit code; verbose, after a traceback."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except (LeukemiaError, click.UsageError, OSError, MemoryError, RuntimeError, KeyboardInterrupt) as error:
        line = _line_of(error)
        if line is None:
            raise
        if CONSOLE.verbosity is Verbosity.VERBOSE and line.exit_code != UsageError.exit_code:
            traceback.print_exception(error, file=sys.stderr)
        raise line from error


def _line_of(error: BaseException) -> _OneLineError | None:
    """Return an expected error as one line; None for a fault of the program."""
    failed = LeukemiaError.exit_code
    match error:
        case LeukemiaError():
            return _OneLineError(str(error), error.exit_code)
        case click.UsageError():
            # click's own form of it takes four lines.
            hint = f" (see `{error.ctx.command_path} --help`)" if error.ctx is not None else ""
            return _OneLineError(f"{error.format_message()}{hint}", UsageError.exit_code)
        case OSError() if error.filename is not None:
            return _OneLineError(f"{error.filename}: {error.strerror}", failed)
        case OSError() if error.errno in _MACHINE_FAULTS:
            return _OneLineError(str(error.strerror), failed)
        case MemoryError():
            return _OneLineError("not enough memory: end other programs, or ask for less at a time", failed)
        case RuntimeError() if "can't start new thread" in str(error):
            # Python's message if the system gives no more memory or threads.
            return _OneLineError("the system gives no more threads or memory: end other programs", failed)
        case KeyboardInterrupt():
            return _OneLineError("interrupted", InterruptionError.exit_code)
        case _:
            return None
