"""How figures and Markdown pages look."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.text import Text

from leukemia_data.files.atomic import atomic_path
from leukemia_data.files.text import printable
from leukemia_data.splitting.leaks import is_disjoint_stamp
from leukemia_models.evaluation.resampling import Interval

DOTS_PER_INCH = 160
POINTS_PER_INCH = 72
LETTER_WIDTH = 0.7
"""Of a bold letter with some room, as a share of the font's size."""
BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY_BLUE, BLACK)
"""In the order in which figures take them; yellow is too pale for a line."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINE_STYLES = ("-", "--", "-.", ":")
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo")
TRAIN_STYLE: dict[str, Any] = {"color": BLUE, "linestyle": "--", "marker": "o", "label": "training"}
VALID_STYLE: dict[str, Any] = {"color": VERMILION, "linestyle": "-", "marker": "s", "label": "validation"}


@dataclass(frozen=True, slots=True)
class SeriesStyle:
    """What tells one of several series from the others, with and without colour."""

    color: str
    marker: str
    hatch: str


def series_style(number: int) -> SeriesStyle:
    """Return the style of series `number` (from 0); after seven, colours come back with other markers and hatches."""
    turn = number // len(COLORS)
    return SeriesStyle(
        COLORS[number % len(COLORS)],
        MARKERS[(number + turn) % len(MARKERS)],
        HATCHES[(number + turn) % len(HATCHES)],
    )


def stamped_figure(size_inches: tuple[float, float], title: str, stamp: str) -> Figure:
    """Return an empty figure with a title above and the split's stamp below.

    Parameters
    ----------
    size_inches : tuple of two floats
        Width and height.
    title : str
        For example the network's name and what was evaluated.
    stamp : str
        Kind of split; highlighted unless it is subject-disjoint.
    """
    figure = Figure(figsize=size_inches, layout="constrained")
    figure.suptitle(_wrapped(title, size_inches[0], fontsize=12), fontsize=12)
    is_warning = not is_disjoint_stamp(stamp)
    box = {"boxstyle": "round", "facecolor": YELLOW if is_warning else "white", "edgecolor": "0.4"}
    text = _wrapped(f"split: {stamp}", size_inches[0], fontsize=9)
    figure.supxlabel(text, fontsize=9, fontweight="bold" if is_warning else "normal", bbox=box)
    return figure


def _wrapped(text: str, width_inches: float, fontsize: float) -> str:
    """Break lines that would not fit; matplotlib cuts them off at the borders of the figure."""
    num_letters = int(width_inches * POINTS_PER_INCH / (fontsize * LETTER_WIDTH))
    return "\n".join(textwrap.fill(line, num_letters) for line in text.splitlines())


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG to `path`, and as PDF (vector) beside it, each atomically.

    The same figure gives the same bytes: neither file holds a date, or names the version of matplotlib.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Made without pyplot.
    path : Path
        Ends in ``.png``; in a directory that exists.
    """
    lay_out(figure)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    with atomic_path(path.with_suffix(".pdf")) as partial:
        FigureCanvasPdf(figure)
        figure.savefig(partial, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})


def wrapped_name(name: str, num_letters: int) -> str:
    """Return a name from a source, printable and on as many lines as it takes, for the places where room is short."""
    return textwrap.fill(printable(name), num_letters, break_on_hyphens=False) or name


def _show_texts_as_they_are(figure: Figure) -> None:
    """Names of classes, subjects and runs may hold a dollar sign, which begins a formula, or what no font can show."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_text(_with_glyphs(printable(text.get_text()), text))


def _with_glyphs(letters: str, text: Text) -> str:
    r"""Escapes such as ``\u6b63`` in the place of letters that the text's font lacks: boxes would all look alike."""
    if letters.isascii():
        return letters
    font = get_font(findfont(text.get_fontproperties()))
    return "".join(
        letter if letter.isascii() or font.get_char_index(ord(letter)) else letter.encode("unicode_escape").decode()
        for letter in letters
    )


def lay_out(figure: Figure) -> None:
    """Find the places of all parts once, for both files.

    With a layout engine, each `savefig` draws everything once more, unseen: twice the work.
    """
    figure.set_dpi(DOTS_PER_INCH)
    _show_texts_as_they_are(figure)
    # A canvas binds itself to the figure.
    FigureCanvasAgg(figure)
    engine = figure.get_layout_engine()
    if engine is not None:
        # Axes of a fixed aspect, and legends beside them, are placed by what the first pass left.
        for _ in range(2):
            engine.execute(figure)
    figure.set_layout_engine(None)


UNDEFINED = "undefined"
_BACKTICKS = re.compile("`+")
# A backslash before a letter, a low line within a word and brackets without an address behind them mean nothing.
_MARKUP = re.compile(r"\\(?=[!-/:-@\[-`{-~]|$)|[`*<]|(?<!\w)_|_(?!\w)|\](?=[(\[:])|&(?=#?\w+;)|~(?=~)")


def markdown_table(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table of Markdown cells; a ``|`` within a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def code(text: str) -> str:
    """Return a text as code: shown as it is, whatever it holds.

    >>> code("hem"), code("a`b")
    ('`hem`', '``a`b``')
    """
    shown = _one_line(text)
    longest = max((len(run) for run in _BACKTICKS.findall(shown)), default=0)
    fence = "`" * (longest + 1)
    # Markdown takes one blank from either side, and would join a backtick at an end with the fence.
    needs_blanks = bool(shown.strip()) and (shown[0] in "` " or shown[-1] in "` ")
    return f"{fence} {shown} {fence}" if needs_blanks else f"{fence}{shown or ' '}{fence}"


def plain(value: object) -> str:
    r"""Return a value for the middle of a line, with all that Markdown or HTML would take for markup escaped.

    >>> print(plain("report_a"), plain("<b>*x*"))
    report_a \<b>\*x\*
    """
    return _MARKUP.sub(r"\\\g<0>", _one_line(str(value)))


def number_text(value: float | None) -> str:
    """Three decimals, or ``undefined``."""
    return UNDEFINED if value is None else f"{value:.3f}"


def interval_text(interval: Interval | None) -> str:
    """``0.812 - 0.934``, or a dash where there is none."""
    return "-" if interval is None else f"{interval.low:.3f} - {interval.high:.3f}"


def without_repeats(paragraphs: Iterable[str]) -> list[str]:
    """Return the paragraphs once each, without those that another one begins with."""
    unique = list(dict.fromkeys(paragraphs))
    return [text for text in unique if not any(other != text and other.startswith(text) for other in unique)]


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield nested settings as ``optimizer.lr`` and its value."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _one_line(text: str) -> str:
    return printable(text.replace("\n", " ").replace("\t", " "))


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
