"""The documents: every command in them is valid, and every command of the programs is documented."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli.ldata import main as ldata
from cli.ltrain import main as ltrain

ROOT = Path(__file__).resolve().parent.parent
TOOLS: dict[str, click.Group] = {"ldata": ldata, "ltrain": ltrain}
PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if path.is_file()]
_BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SHELL_ENDS = {"&&", "||", ";", "|", ">", ">>", "2>", "<", "&"}


def command_lines(page: str) -> Iterator[str]:
    """Shell commands of the two tools in a page's code blocks; continued lines are joined, prompts dropped."""
    for block in _BLOCK.findall(page):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.strip().removeprefix("$ ")
            if command.split(" ", 1)[0] in TOOLS:
                yield command


def arguments_of(command: str) -> list[str]:
    """Words of a command up to a comment, a pipe or a redirection."""
    words = shlex.split(command, comments=True)
    ends = [position for position, word in enumerate(words) if word in _SHELL_ENDS]
    return words[: min(ends, default=len(words))]


def parse(words: list[str]) -> None:
    """Let click read a command line without running it; what it refuses is raised as a UsageError."""
    tool, *arguments = words
    group = TOOLS[tool]
    if {"--help", "-h", "--version"} & set(arguments):
        arguments = [word for word in arguments if word not in ("--help", "-h", "--version")]
        if not arguments:
            return
    with group.make_context(tool, list(arguments), resilient_parsing=False) as context:
        remaining = [*getattr(context, "_protected_args", ()), *context.args]
        if remaining:
            name, command, rest = group.resolve_command(context, remaining)
            assert command is not None
            with command.make_context(name, rest, parent=context):
                pass


COMMANDS = [
    pytest.param(command, id=f"{page.name}-{number}")
    for page in PAGES
    for number, command in enumerate(command_lines(page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_command_is_understood(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Paths in documents need not exist; click checks that only for --root.
    words = arguments_of(command)
    monkeypatch.chdir(tmp_path)
    for position, word in enumerate(words[:-1]):
        if word == "--root":
            Path(words[position + 1]).mkdir(parents=True, exist_ok=True)
    try:
        parse(words)
    except click.UsageError as error:
        pytest.fail(f"{command}\n{error.format_message()}")


@pytest.mark.skipif(not (ROOT / "README.md").is_file(), reason="README.md is not written yet")
@pytest.mark.parametrize("tool", TOOLS)
def test_every_command_is_documented(tool: str) -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    names = TOOLS[tool].list_commands(click.Context(TOOLS[tool]))
    assert [name for name in names if not re.search(rf"\b{tool} {name}\b", text)] == []


def _pages_of_help() -> Iterator[tuple[str, str]]:
    for tool, group in TOOLS.items():
        yield tool, group.get_help(click.Context(group, info_name=tool))
        for name in group.list_commands(click.Context(group)):
            command = group.get_command(click.Context(group), name)
            assert command is not None
            yield f"{tool} {name}", command.get_help(click.Context(command, info_name=f"{tool} {name}"))


@pytest.mark.parametrize(("name", "page"), [pytest.param(*found, id=found[0]) for found in _pages_of_help()])
def test_examples_in_help_are_understood(name: str, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lab3").mkdir()
    examples = [line.strip() for line in page.splitlines() if line.strip().split(" ", 1)[0] in TOOLS]
    assert examples
    for example in examples:
        parse(arguments_of(example))


def headings_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> list[str]:
    """Return the links of a page to files or headings of the project that are not there."""
    links = re.findall(r"\]\(([^)\s]+)\)", _BLOCK.sub("", page.read_text(encoding="utf-8")))
    broken = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if "://" not in link and not (target.exists() and (not anchor or anchor in headings_of(target))):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_every_page_is_named_at_the_root_and_there() -> None:
    pages = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CHANGELOG.md"))
    named = {name for page in pages for name in re.findall(r"docs/[\w.-]+\.\w+", page)}
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert sorted(pages - named) == []


# --- the reader of these tests itself ---------------------------------------------------------------------------


def test_code_blocks_are_read_as_a_shell_reads_them() -> None:
    block = "```sh\n$ ldata build x \\\n    --size 128  # both\ncd y\nltrain --epochs 2 | tee log\n```\n"
    page = f"Run `ldata nothing`.\n\n{block}"
    assert [arguments_of(command) for command in command_lines(page)] == [
        ["ldata", "build", "x", "--size", "128"],
        ["ltrain", "--epochs", "2"],
    ]


@pytest.mark.parametrize(
    "command", ["ldata nonsense", "ldata build --bogus", "ldata build --size x", "ltrain --model vgg", "ltrain predict"]
)
def test_wrong_commands_are_noticed(command: str) -> None:
    with pytest.raises(click.ClickException):
        parse(arguments_of(command))


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One, two\n[a](page.md) [b](#one-two) [c](gone.md) [d](#three) [e](https://x.org/y)\n")
    assert broken_links(page) == ["gone.md", "#three"]
