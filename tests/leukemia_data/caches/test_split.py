"""Splits of a cache: parts compared with NumPy's counts, statistics with pixels, streams with the reader."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

from leukemia_data.caches.cache import open_cache
from leukemia_data.errors import UsageError
from leukemia_data.sources.sample_set import write_sample

from ..helpers import build, python_environment


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("split")
    write_sample(root / "cells", num_subjects=12, cells_per_subject=4, seed=0)
    build(root / "cells", root / "cache", sizes_px=(24,))
    (manifest,) = (root / "cache").rglob("manifest.json")
    return open_cache(manifest.parent)


def test_parts_hold_whole_subjects_and_every_image_once(cache):
    split = cache.split("subject", seed=3)
    parts = [split.train, split.valid, split.test]
    assert sorted(np.concatenate([part.indices for part in parts]).tolist()) == list(range(len(cache)))
    subjects = np.array(cache.table.subject_texts)
    assert [part.subjects for part in parts] == [tuple(sorted(set(subjects[part.indices]))) for part in parts]
    assert sum(len(part.subjects) for part in parts) == 12
    for part in parts:
        names = np.array(cache.manifest.classes)[part.labels]
        assert part.num_per_class == {name: int((names == name).sum()) for name in cache.manifest.classes}
        assert len(part) == sum(part.num_per_class.values())
    assert split.stamp.startswith("subject-disjoint")
    assert cache.split("image").stamp.startswith("PATIENT-MIXED")


def test_statistics_are_those_of_the_pixels(cache):
    part = cache.split("subject").train
    pixels = cache.reader.gather(part.indices).reshape(-1, 3) / 255
    np.testing.assert_allclose(part.statistics().mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(part.statistics().std, pixels.std(axis=0), rtol=1e-9)
    assert cache.statistics().num_images == len(cache)


def test_stream_and_dataset_serve_the_part(cache):
    split = cache.split("subject")
    with split.test.stream(batch_size=3) as stream:
        batches = list(stream)
    assert np.concatenate([batch.indices_B for batch in batches]).tolist() == split.test.indices.tolist()
    for batch in batches:
        assert np.array_equal(batch.images_BHWC.numpy(), cache.reader.gather(batch.indices_B.numpy()))
    with split.train.stream(batch_size=8) as stream:
        shuffled = [number for batch in stream for number in batch.indices_B.tolist()]
    assert shuffled != split.train.indices.tolist() == sorted(shuffled)
    assert split.test.dataset().labels.tolist() == split.test.labels.tolist()


def test_balanced_stream_draws_classes_equally_often(cache):
    part = cache.split("subject").train
    with part.stream(batch_size=len(part), balance="class") as stream:
        (batch,) = stream
    counts = np.bincount(batch.labels_B.numpy(), minlength=2)
    assert abs(counts[0] - counts[1]) <= len(part) // 10


def test_wrong_arguments_are_named(cache):
    split = cache.split("official:0")
    for use, word in (
        (lambda: cache.split("sujbect"), "unknown split 'sujbect'"),
        (lambda: cache.split(3), "name must be"),
        (lambda: cache.split("subject", seed="x"), "seed must be"),
        (lambda: split.indices("tset"), "unknown part 'tset'"),
        (lambda: split.valid.stream(), "part 'valid' of split official:0 holds no image"),
        (lambda: split.valid.dataset(), "holds no image"),
        (lambda: split.valid.statistics(), "holds no image"),
        (lambda: split.train.stream(balance="classes"), "balance must be"),
        (lambda: split.train.stream(batch_size=0), "batch_size must be"),
    ):
        with pytest.raises(UsageError, match=word):
            use()


def test_it_shows_itself_and_pickles(cache):
    split = cache.split("subject", seed=1)
    again = pickle.loads(pickle.dumps(split))
    assert repr(again) == repr(split)
    assert np.array_equal(again.test.indices, split.test.indices)
    assert len(repr(split).splitlines()) == 1
    for shown in (repr(split), split._repr_html_()):
        assert split.stamp in shown
    assert f"<td>{len(split.train)}</td>" in split._repr_html_()
    assert repr(split.train).startswith("Part(train of subject: ")


def test_splits_and_statistics_load_no_torch(cache):
    code = (
        "import sys; import leukemia_data as ld\n"
        "assert {name for name in sys.modules if name.startswith('leukemia')} == {'leukemia_data', "
        "'leukemia_data.lazy_imports'}\n"
        "cache = ld.open_cache(sys.argv[1]); split = cache.split(); split.train.statistics(); print(cache, split)\n"
        "assert 'torch' not in sys.modules; split.train.stream(); assert 'torch' in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, cache.directory], env=python_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
