"""Figures of an audit: pairs and odd frames side by side, and images per subject.

The contact sheet shows real cells, so it is written only to the user's output folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from leukemia_data.auditing.audit import AuditReport, ClassBalance
from leukemia_data.auditing.audit_image import AuditImage
from leukemia_data.auditing.audit_pairs import AuditPair
from leukemia_data.files.atomic import move_into_place, scratch_path
from leukemia_data.files.text import printable
from leukemia_data.operations.operation import Image
from leukemia_data.scanning.preview import shortened
from leukemia_data.scanning.scan import spread_evenly

LoadPixels: TypeAlias = "Callable[[AuditImage], Image | None]"
"""Returns the pixels of an image, or ``None`` if unavailable."""

MAX_PAIRS = 12
MAX_FRAMES = 16
_PANELS_PER_ROW = 8
_PANEL_INCHES = 1.5
_DPI = 120
_BAR_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_MAX_NAMED_SUBJECTS = 130
_MAX_UPRIGHT_SUBJECTS = 24
_MIN_BARS = 12
_CAPTION_LETTERS = 26
_LABEL_LETTERS = 16


@dataclass(frozen=True, slots=True)
class _Panel:
    pixels: Image
    title: str
    below: str


def draw_findings(report: AuditReport, load: LoadPixels, path: Path) -> bool:
    """Draw some identical pairs, near duplicates and odd frames of each kind into a PNG.

    Pairs on two sides come first.

    Returns
    -------
    bool
        Whether there was anything to draw.
    """
    sections = [
        ("identical", list(_pair_panels(report, _choose_pairs(report, report.identical), load))),
        ("near-identical", list(_group_panels(report, load))),
        ("look alike", list(_pair_panels(report, _choose_pairs(report, report.near), load))),
        ("odd frames", list(_fault_panels(report, load))),
    ]
    rows = [
        (title, panels[start : start + _PANELS_PER_ROW])
        for title, panels in sections
        for start in range(0, len(panels), _PANELS_PER_ROW)
    ]
    if not rows:
        return False
    figure = Figure(figsize=(_PANEL_INCHES * _PANELS_PER_ROW * 1.12, (_PANEL_INCHES + 0.62) * len(rows) + 0.4))
    figure.set_layout_engine("constrained")
    # A narrow empty column after every second panel separates pairs.
    widths = [1.0, 1.0, 0.25] * (_PANELS_PER_ROW // 2)
    axes = figure.subplots(len(rows), len(widths) - 1, squeeze=False, width_ratios=widths[:-1])
    for row_axes, (title, panels) in zip(axes, rows, strict=True):
        slots = [axis for number, axis in enumerate(row_axes) if number % 3 != 2]
        for axis in row_axes:
            axis.set_axis_off()
        for axis, panel in zip(slots, panels, strict=False):
            _draw_panel(axis, panel)
        slots[0].set_ylabel(title, fontsize=9)
    figure.suptitle(f"{len(report.images):,} images audited: some of what was found", fontsize=10)
    _save(figure, path)
    return True


def draw_balance(report: AuditReport, path: Path) -> None:
    """Draw the number of images per subject and class into a PNG; per class if no subject is known."""
    shown = [one for one in report.balance if one.images_per_subject]
    figure = Figure(figsize=(11.0, 2.9 * max(len(shown), 1) + 0.4), layout="constrained")
    # A common scale, so that small classes look small.
    axes = figure.subplots(max(len(shown), 1), 1, squeeze=False, sharey=True)[:, 0]
    for number, (axis, one) in enumerate(zip(axes, shown, strict=False)):
        _draw_class(axis, one, _BAR_COLOURS[number % len(_BAR_COLOURS)])
    if not shown:
        _draw_classes(axes[0], report.balance)
    title = "images per subject" if shown else "images per class; no subject is known"
    figure.suptitle(title, fontsize=11)
    _save(figure, path)


def _choose_pairs(report: AuditReport, pairs: Sequence[AuditPair]) -> list[AuditPair]:
    def crosses(pair: AuditPair) -> bool:
        found = ((division.of_image[pair.first], division.of_image[pair.second]) for division in report.sides)
        return any(a and b and a != b for a, b in found)

    crossing = [pair for pair in pairs if crosses(pair)]
    chosen = spread_evenly(crossing, MAX_PAIRS)
    return chosen + spread_evenly([pair for pair in pairs if not crosses(pair)], MAX_PAIRS - len(chosen))


def _group_panels(report: AuditReport, load: LoadPixels) -> Iterator[_Panel]:
    """The first image of some near-identical groups, and the one least similar to it."""
    sizes = {}
    for number, group in enumerate(report.near_groups, 1):
        least = min(group.pairs, key=lambda pair: pair.correlation or 0.0)
        sizes[least] = f"group {number}: {len(group.images)} images"
    for pair in _choose_pairs(report, list(sizes)):
        yield from _pair_panels(report, [pair], load, sizes[pair])


def _pair_panels(
    report: AuditReport, pairs: Sequence[AuditPair], load: LoadPixels, group: str = ""
) -> Iterator[_Panel]:
    for pair in pairs:
        first, second = report.images[pair.first], report.images[pair.second]
        pixels = load(first), load(second)
        if pixels[0] is None or pixels[1] is None:
            continue
        relation = "the same pixels"
        if pair.correlation is not None:
            relation = f"{group or f'{pair.distance} bits'}, r = {pair.correlation:.2f}"
        yield _Panel(pixels[0], _title(first), _below(first))
        yield _Panel(pixels[1], f"{_title(second)}\n{relation}", _below(second))


def _fault_panels(report: AuditReport, load: LoadPixels) -> Iterator[_Panel]:
    kinds = list(dict.fromkeys(fault.kind for fault in report.faults if fault.kind != "unusable"))
    for kind in kinds:
        faults = [fault for fault in report.faults if fault.kind == kind]
        for fault in spread_evenly(faults, max(MAX_FRAMES // len(kinds), 1)):
            image = report.images[fault.image]
            pixels = load(image)
            if pixels is not None:
                yield _Panel(pixels, f"{_title(image)}\n{kind.replace('_', ' ')}", _below(image))


def _title(image: AuditImage) -> str:
    subject = f"subject {image.subject}" if image.subject else "subject unknown"
    return shortened(f"{subject}, {image.class_name or 'no label'}", _CAPTION_LETTERS)


def _below(image: AuditImage) -> str:
    place = ", ".join(part for part in (image.split, f"fold {image.fold}" if image.fold >= 0 else "") if part)
    name = shortened(image.name.rsplit("/", 1)[-1], _CAPTION_LETTERS)
    return f"{name}\n{shortened(place, _CAPTION_LETTERS)}" if place else name


def _draw_panel(axis: Axes, panel: _Panel) -> None:
    axis.set_axis_on()
    axis.imshow(panel.pixels, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    # A dollar sign in a file name must not start a formula.
    axis.set_title(printable(panel.title), fontsize=6.5, parse_math=False)
    axis.set_xlabel(printable(panel.below), fontsize=6, parse_math=False)


def _draw_class(axis: Axes, one: ClassBalance, colour: str) -> None:
    names, counts = list(one.images_per_subject), list(one.images_per_subject.values())
    axis.bar(range(len(names)), counts, color=colour, edgecolor="white", linewidth=0.4)
    axis.set_title(printable(f"{one.name or 'unlabelled'}: {one.describe()}"), fontsize=9, parse_math=False)
    axis.set_ylabel("images")
    axis.set_xlim(-0.7, max(len(names), _MIN_BARS) - 0.3)
    if len(names) <= _MAX_NAMED_SUBJECTS:
        _name_bars(axis, names)
    else:
        axis.set_xticks([])
        axis.set_xlabel(f"{len(names)} subjects, most images first")
    axis.grid(visible=True, axis="y", color="0.9")
    axis.set_axisbelow(True)


def _draw_classes(axis: Axes, balance: Sequence[ClassBalance]) -> None:
    """One bar per class, with its count."""
    bars = axis.bar(range(len(balance)), [one.num_images for one in balance], color=_BAR_COLOURS[0])
    axis.bar_label(bars, [f"{one.num_images:,}" for one in balance], fontsize=8)
    axis.set_ylabel("images")
    axis.set_xlim(-0.7, max(len(balance), _MIN_BARS) - 0.3)
    _name_bars(axis, [one.name or "unlabelled" for one in balance])
    axis.margins(y=0.12)


def _name_bars(axis: Axes, names: Sequence[str]) -> None:
    labels = [shortened(name, _LABEL_LETTERS) for name in names]
    is_short = len(labels) <= _MAX_UPRIGHT_SUBJECTS and max(map(len, labels), default=0) <= _LABEL_LETTERS // 2
    axis.set_xticks(range(len(labels)), labels, rotation=0 if is_short else 90, fontsize=7, parse_math=False)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with scratch_path(path.parent, path.name) as scratch:
        # Without "Software", the bytes do not depend on matplotlib's version string.
        figure.savefig(scratch, dpi=_DPI, format="png", metadata={"Software": None})
        move_into_place(scratch, path)
