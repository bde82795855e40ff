from __future__ import annotations

import hashlib

import cv2
import numpy as np

from leukemia_data.auditing.audit_input import cache_audit_images, inspect_records
from leukemia_data.caches.cache import open_cache
from leukemia_data.decoding.decode import frame_digest
from leukemia_data.sources.source import list_source

from ..helpers import TINY_RECIPE, build, cache_dir, make_source


def test_files_and_their_cache_have_the_same_digests(tmp_path):
    source = make_source(tmp_path / "source", 12)
    build(source, tmp_path / "caches", sizes_px=[16], recipe=TINY_RECIPE)
    listing = list_source([source])
    files = list(inspect_records(listing.records, listing.classes, num_threads=2))
    with open_cache(cache_dir(tmp_path / "caches", 16)) as cache:
        cached = cache_audit_images(cache)
    by_name = {image.name: image for image in cached}
    assert len(files) == len(cached) == 12
    for image in files:
        other = by_name[image.name]
        assert image.pixel_digest == other.pixel_digest != b""
        assert (image.subject, image.class_name) == (other.subject, other.class_name)


def test_format_does_not_count_but_shape_does(tmp_path, rng, make_frame, write_image):
    frame = make_frame(rng, 60, 80)
    digests = set()
    for name in ("a.bmp", "b.png", "c.tif"):
        pixels = cv2.imread(str(write_image(tmp_path / name, frame)))[..., ::-1]
        digests.add(frame_digest(pixels))
    assert digests == {frame_digest(frame)}
    assert frame_digest(frame.reshape(80, 60, 3)) not in digests


def test_unusable_files_are_reported_and_black_ones_measured(tmp_path, rng, make_frame, write_image):
    write_image(tmp_path / "a" / "good.png", make_frame(rng, 60, 60))
    write_image(tmp_path / "a" / "black.bmp", np.zeros((60, 60, 3), np.uint8))
    (tmp_path / "a" / "rubbish.png").write_bytes(b"rubbish")
    (tmp_path / "a" / "empty.png").write_bytes(b"")
    listing = list_source([tmp_path])
    images = inspect_records(listing.records, listing.classes, with_sha256=True)
    by_name = {image.name: image for image in images}
    assert list(by_name) == [record.record_id for record in listing.records]
    good = by_name["a/good.png"]
    assert good.cell_print is not None
    assert good.sha256 == hashlib.sha256((tmp_path / "a" / "good.png").read_bytes()).digest()
    black = by_name["a/black.bmp"]
    assert (black.problem, black.frame.brightest, black.pixel_digest) == ("", 0, b"")
    assert "BMP" in by_name["a/rubbish.png"].problem
    assert "empty" in by_name["a/empty.png"].problem
