"""Style of figures and of Markdown pages.

matplotlib, whose import takes a second, is loaded with the first figure: a training begins without it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leukemia_data.files.atomic import atomic_path
from leukemia_data.files.text import printable
from leukemia_data.lazy_imports import Library
from leukemia_data.splitting.leaks import is_disjoint_stamp
from leukemia_models.evaluation.resampling import Interval

if TYPE_CHECKING:
    from matplotlib import figure as figures
    from matplotlib import font_manager as fonts
    from matplotlib import text as texts
    from matplotlib import ticker
    from matplotlib.axis import Axis
    from matplotlib.backends import backend_agg, backend_pdf
    from matplotlib.figure import Figure
    from matplotlib.text import Text
else:
    backend_agg, backend_pdf = map(Library, ("matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf"))
    figures, fonts = map(Library, ("matplotlib.figure", "matplotlib.font_manager"))
    texts, ticker = map(Library, ("matplotlib.text", "matplotlib.ticker"))

DOTS_PER_INCH = 160
LETTER_WIDTH = 0.7
"""Of a bold letter with a margin, as a fraction of the font size."""
BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY_BLUE, BLACK)
"""Colours of series, in order; yellow is too pale for lines."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINE_STYLES = ("-", "--", "-.", ":")
TRAIN_STYLE: dict[str, Any] = {"color": BLUE, "linestyle": "--", "marker": "o", "label": "training"}
VALID_STYLE: dict[str, Any] = {"color": VERMILION, "linestyle": "-", "marker": "s", "label": "validation"}


@dataclass(frozen=True, slots=True)
class SeriesStyle:
    """Colour and marker of one of several series."""

    color: str
    marker: str


def series_style(number: int) -> SeriesStyle:
    """Return the style of series `number` (from 0); after seven, colours repeat with other markers."""
    turn = number // len(COLORS)
    return SeriesStyle(COLORS[number % len(COLORS)], MARKERS[(number + turn) % len(MARKERS)])


def stamped_figure(size_inches: tuple[float, float], title: str, stamp: str) -> Figure:
    """Return an empty figure (width, height) with a title above and the split's stamp below.

    The stamp is highlighted unless it is subject-disjoint.
    """
    figure = figures.Figure(figsize=size_inches, layout="constrained")
    figure.suptitle(_wrapped(title, size_inches[0], fontsize=12), fontsize=12)
    is_warning = not is_disjoint_stamp(stamp)
    box = {"boxstyle": "round", "facecolor": YELLOW if is_warning else "white", "edgecolor": "0.4"}
    text = _wrapped(f"split: {stamp}", size_inches[0], fontsize=9)
    figure.supxlabel(text, fontsize=9, fontweight="bold" if is_warning else "normal", bbox=box)
    return figure


def _wrapped(text: str, width_inches: float, fontsize: float) -> str:
    """Break lines that matplotlib would cut off at the border of the figure."""
    points_per_inch = 72
    num_letters = int(width_inches * points_per_inch / (fontsize * LETTER_WIDTH))
    return "\n".join(textwrap.fill(line, num_letters) for line in text.splitlines())


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, made without pyplot, as PNG to `path` and as PDF beside it, each atomically.

    The files hold no date and no version of matplotlib, so that the same figure gives the same bytes.
    """
    lay_out(figure)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    with atomic_path(path.with_suffix(".pdf")) as partial:
        backend_pdf.FigureCanvasPdf(figure)
        figure.savefig(partial, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})


def tick_whole_numbers(axis: Axis, most: int = 10) -> None:
    """Let an axis have at most so many ticks, all at whole numbers."""
    axis.set_major_locator(ticker.MaxNLocator(nbins=most, integer=True, min_n_ticks=1))


def wrapped_name(name: str, num_letters: int) -> str:
    """Return a printable name in lines of at most `num_letters`."""
    return textwrap.fill(printable(name), num_letters, break_on_hyphens=False) or name


def _with_glyphs(letters: str, text: Text) -> str:
    r"""Return letters with escapes such as ``\u6b63`` for those that the text's font lacks."""
    if letters.isascii():
        return letters
    font = fonts.get_font(fonts.findfont(text.get_fontproperties()))
    return "".join(
        letter if letter.isascii() or font.get_char_index(ord(letter)) else letter.encode("unicode_escape").decode()
        for letter in letters
    )


def lay_out(figure: Figure) -> None:
    """Lay out a figure once for both files; with a layout engine, each `savefig` would do it again."""
    figure.set_dpi(DOTS_PER_INCH)
    for text in figure.findobj(texts.Text):
        # A dollar sign in a name must not begin a formula.
        text.set_parse_math(False)
        text.set_text(_with_glyphs(printable(text.get_text()), text))
    # The canvas attaches itself to the figure.
    backend_agg.FigureCanvasAgg(figure)
    engine = figure.get_layout_engine()
    if engine is not None:
        # Axes of a fixed aspect, and legends beside them, need a second pass.
        for _ in range(2):
            engine.execute(figure)
    figure.set_layout_engine(None)


# A backslash before a letter, an underscore within a word and brackets without an address behind them are no markup.
_MARKUP = re.compile(r"\\(?=[!-/:-@\[-`{-~]|$)|[`*<]|(?<!\w)_|_(?!\w)|\](?=[(\[:])|&(?=#?\w+;)|~(?=~)")


def markdown_table(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table of Markdown cells; a ``|`` within a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def code(text: str) -> str:
    """Return a text as Markdown code.

    >>> code("hem"), code("a`b")
    ('`hem`', '``a`b``')
    """
    shown = _one_line(text)
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    # Markdown removes one blank from either side, and would join a backtick at an end with the fence.
    needs_blanks = bool(shown.strip()) and (shown[0] in "` " or shown[-1] in "` ")
    return f"{fence} {shown} {fence}" if needs_blanks else f"{fence}{shown or ' '}{fence}"


def plain(value: object) -> str:
    r"""Return a value with the markup of Markdown and HTML escaped, for the middle of a line.

    >>> print(plain("report_a"), plain("<b>*x*"))
    report_a \<b>\*x\*
    """
    return _MARKUP.sub(r"\\\g<0>", _one_line(str(value)))


def quoted_paragraphs(sentences: Iterable[str]) -> str:
    """Return sentences as one Markdown quotation, a paragraph each."""
    return "\n>\n".join(f"> {plain(sentence)}" for sentence in sentences)


def number_text(value: float | None) -> str:
    """Return three decimals, or ``undefined``."""
    return "undefined" if value is None else f"{value:.3f}"


def interval_text(interval: Interval | None) -> str:
    """Return ``0.812 - 0.934``, or a dash for None."""
    return "-" if interval is None else f"{interval.low:.3f} - {interval.high:.3f}"


def without_repeats(paragraphs: Iterable[str]) -> list[str]:
    """Return different paragraphs, without those that another one begins with."""
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
