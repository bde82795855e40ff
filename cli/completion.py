"""What a shell completes behind options and arguments, and the command that prints a shell's script.

Nothing here loads a library of the work, or asks a network: an answer has to come while somebody waits for a key.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from cli.output import print_text

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
def command(context: click.Context, shell: str) -> None:
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
