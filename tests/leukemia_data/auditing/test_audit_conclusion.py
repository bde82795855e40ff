"""Conclusions of an audit, and their agreement with a training's stamp of the same split."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from leukemia_data.auditing.audit_image import AuditImage, Check
from leukemia_data.auditing.audit_input import cache_audit_images, inspect_records
from leukemia_data.auditing.audit_report import TrainingOutlook, conclusion, training_outlook
from leukemia_data.caches.cache import open_cache
from leukemia_data.errors import UsageError
from leukemia_data.sources.source import list_source
from leukemia_data.splitting.leaks import check_leaks
from leukemia_data.splitting.split_spec import parse_split
from leukemia_data.splitting.splits import assign_split

from ..helpers import build, cache_dir

SIZE = 16
MIXED = TrainingOutlook("subject", 0, "PATIENT-MIXED (1 subject written in several ways)")
CLEAN = TrainingOutlook("subject", 0, "subject-disjoint")


def checks(*verdicts: str) -> list[Check]:
    return [Check(str(n), verdict, 1, "") for n, verdict in enumerate(verdicts)]


def test_no_leak_is_reported_only_where_a_training_would_begin():
    def said(*arguments):
        return " ".join(conclusion(*arguments))

    assert "No leak was found" in said(checks("ok", "LOOK"), CLEAN)
    assert "stamped subject-disjoint" in said(checks("ok"), CLEAN)
    assert "No leak was found" in said(checks("ok"), None)
    assert "No leak" not in said(checks("ok"), MIXED)
    assert "refused as PATIENT-MIXED" in said(checks("ok"), MIXED)
    assert "No leak" not in said(checks("WRONG"), CLEAN)
    assert "1 finding is a contradiction" in said(checks("WRONG"), MIXED)
    assert "2 findings are leaks" in said(checks("LEAK", "LEAK"), MIXED)
    unknown = [Check("no_subject", "LOOK", 3, "")]
    assert "subject-disjoint" in said(unknown, TrainingOutlook("subject", 0, refusal="whose cell each image is"))
    assert "No leak" not in said(unknown, TrainingOutlook("subject", 0, refusal="whose cell each image is"))


def test_a_table_of_names_gives_no_statement_about_training():
    images = [AuditImage(name="0", sha256=b"0" * 32, class_name="all", subject="1")]
    assert training_outlook(parse_split("subject"), images, 0, ("hem", "all")) is None


def copy_of(rng: np.random.Generator, frame: np.ndarray, kind: int) -> np.ndarray:
    """A modified copy of an image; some modifications keep it near-identical, some do not."""
    if kind == 0:
        return frame
    if kind == 1:
        return np.rot90(frame, int(rng.integers(1, 4)))
    if kind == 2:
        return frame[:, ::-1]
    if kind == 3:
        return cv2.resize(frame, (150, 150), interpolation=cv2.INTER_AREA)
    if kind == 4:
        changed = frame.copy()
        changed[rng.integers(60, 110, 27), rng.integers(60, 110, 27)] = rng.integers(0, 256, (27, 3))
        return changed
    if kind == 5:
        return cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 90])[1], cv2.IMREAD_COLOR)
    # Turned by another angle: another image for both.
    return cv2.warpAffine(frame, cv2.getRotationMatrix2D((85, 85), 20, 1), (170, 170))


def planted_source(root: Path, seed: int, make_frame) -> Path:
    """A random source with copies between people, classes and parts of its own."""
    rng = np.random.default_rng(seed)
    frames = [make_frame(rng, 170, 170) for _ in range(24)]
    files = []
    for number, frame in enumerate(frames):
        person = number // 2
        files.append((person, person % 2, int(rng.integers(0, 3)), frame))
    for _ in range(int(rng.integers(0, 4))):
        person = int(rng.integers(0, 12))
        wrong = rng.random() < 0.2
        source = frames[int(rng.integers(len(frames)))]
        copied = np.ascontiguousarray(copy_of(rng, source, int(rng.integers(0, 7))))
        files.append((person, (person + wrong) % 2, int(rng.integers(0, 3)), copied))
    rows = ["Path,label,subject,split"]
    for number, (person, label, part, frame) in enumerate(files):
        cv2.imwrite(str(root / f"{number}.png"), frame)
        rows.append(f"{number}.png,{('hem', 'all')[label]},P{person},{('train', 'valid', 'test')[part]}")
    (root / "cells.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root / "cells.csv"


def outlooks(texts: list[str], told) -> list[str]:
    """The conclusion about each split: its stamp, or its refusal."""
    said = []
    for text in texts:
        try:
            said.append(told(parse_split(text)))
        except UsageError:
            said.append("refused")
    return said


@pytest.mark.parametrize("seed", range(12))
def test_audits_of_a_source_and_of_its_cache_and_a_training_agree(tmp_path, make_frame, seed):
    listing = list_source([planted_source(tmp_path, seed, make_frame)])
    build(listing, tmp_path / "caches", sizes_px=(SIZE,))
    classes, subjects = listing.classes, listing.reading.subjects
    files = list(inspect_records(listing.records, classes))
    texts = ["subject", "image", "given", "fold:1/3", "test-fold:2/3+valid"]

    def of_images(images):
        def told(spec):
            outlook = training_outlook(spec, images, seed, classes, subjects)
            return "refused" if outlook.refusal else outlook.stamp

        return told

    with open_cache(cache_dir(tmp_path / "caches", SIZE)) as cache:
        cached = cache_audit_images(cache)

        def training(spec):
            return check_leaks(assign_split(spec, cache.table, seed, classes), cache.table, subjects).stamp

        expected = outlooks(texts, training)
        assert outlooks(texts, of_images(cached)) == expected
    assert outlooks(texts, of_images(files)) == expected
    assert any(stamp != "refused" for stamp in expected)
