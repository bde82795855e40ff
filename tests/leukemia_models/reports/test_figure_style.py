from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from matplotlib.figure import Figure

from leukemia_models.reports.style import COLORS, DOTS_PER_INCH, save_figure, series_style, stamped_figure

from ...forked_python import forked_python

ROOT = Path(__file__).parents[3]


def drawn() -> Figure:
    figure = stamped_figure((4.0, 3.0), "resnet18", "PATIENT-MIXED")
    figure.subplots().plot([0, 1], [0, 1], label="line")
    return figure


def test_png_and_pdf_are_whole_and_repeatable(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_figure(drawn(), tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pdf", "a.png", "b.pdf", "b.png"]
    for suffix in ("png", "pdf"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert cv2.imread(str(tmp_path / "a.png")).shape[:2] == (3 * DOTS_PER_INCH, 4 * DOTS_PER_INCH)


def test_pdf_is_vector_and_names_neither_date_nor_version(tmp_path: Path) -> None:
    save_figure(drawn(), tmp_path / "a.png")
    content = (tmp_path / "a.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert content.rstrip().endswith(b"%%EOF")
    assert not any(word in content for word in (b"CreationDate", b"matplotlib", b"/Subtype /Image"))


@pytest.mark.parametrize("width", [4.8, 6.4, 9.0])
def test_long_stamp_and_title_stay_within_the_figure(width: float) -> None:
    reasons = "12 subjects on both sides, 1234 identical images on both sides, 10661 images of unknown subjects"
    figure = stamped_figure(
        (width, 4.0), "resnet152-no-maxpool, epoch 100: out-of-fold images", f"PATIENT-MIXED ({reasons})"
    )
    figure.subplots().plot([0, 1], [0, 1])
    figure.draw_without_rendering()
    for text in figure.texts:
        extent = text.get_window_extent()
        assert 0 <= extent.x0 < extent.x1 <= figure.bbox.width
    assert " ".join(figure.get_supxlabel().split()).endswith(f"PATIENT-MIXED ({reasons})")


def test_stamp_is_highlighted_unless_disjoint() -> None:
    colours = {}
    for stamp in ("subject-disjoint", "PATIENT-MIXED"):
        figure = stamped_figure((4.0, 3.0), "t", stamp)
        assert figure.get_supxlabel() == f"split: {stamp}"
        [label] = [text for text in figure.texts if stamp in text.get_text()]
        colours[stamp] = label.get_bbox_patch().get_facecolor()
    assert colours["subject-disjoint"] != colours["PATIENT-MIXED"]


def test_series_differ_with_and_without_colour() -> None:
    styles = [series_style(number) for number in range(len(COLORS))]
    assert len({style.color for style in styles}) == len({style.marker for style in styles}) == len(COLORS)
    many = [series_style(number) for number in range(3 * len(COLORS))]
    assert len({(style.color, style.marker) for style in many}) == len(many)


def test_evaluation_modules_load_no_torch_and_no_pyplot() -> None:
    reports = ("results", "summary_page", "evaluation_figures")
    evaluation = ("predictions", "bootstrap", "calibration", "settings")
    names = (*(f"reports.{name}" for name in reports), *(f"evaluation.{name}" for name in evaluation))
    code = (
        f"import sys, {', '.join(f'leukemia_models.{name}' for name in names)}\n"
        "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_letters_that_the_font_lacks_are_escaped_differently(tmp_path: Path) -> None:
    # In a process of its own: tests of the command line leave figures of this one blank.
    code = (
        "import sys, warnings\n"
        "warnings.filterwarnings('error', message='.*Glyph')\n"
        "from pathlib import Path\n"
        "from leukemia_models.reports.style import save_figure, stamped_figure\n"
        "figure = stamped_figure((4.0, 3.0), '\\u6b63\\u5e38, gr\\u00fcn \\u041b', 'subject-disjoint')\n"
        "save_figure(figure, Path(sys.argv[1]))\n"
        "print(ascii(figure.get_suptitle()))\n"
    )
    told = subprocess.run(
        [*forked_python(), "-c", code, str(tmp_path / "a.png")], check=True, cwd=ROOT, capture_output=True, text=True
    )
    # The font that comes with matplotlib has Cyrillic letters, and no Chinese ones.
    assert told.stdout.strip() == ascii("\\u6b63\\u5e38, gr\u00fcn \u041b")
