from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leukemia_data.caches.cache import open_cache
from leukemia_data.errors import UsageError
from leukemia_data.sources.source import list_source
from leukemia_data.streams.dataset import FileStream

from ..helpers import TINY_RECIPE, build, cache_dir, image_paths, make_source

SIZE, NUM = 16, 10


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return make_source(tmp_path_factory.mktemp("files") / "source", NUM)


def stream_of(source: Path, failures: list[str], **changes) -> FileStream:
    options = {"batch_size": 4, "num_threads": 2, "on_failure": lambda record, _: failures.append(record.record_id)}
    return FileStream(list_source([source]).records, TINY_RECIPE, SIZE, **{**options, **changes})


def test_every_iterator_gives_all_files_with_the_pixels_of_a_cache(source, tmp_path):
    build(source, tmp_path, sizes_px=(SIZE,))
    cache, failures = open_cache(cache_dir(tmp_path, SIZE)), []
    records, pixels = list_source([source]).records, dict(zip(cache.table.id_texts, range(NUM), strict=True))
    stream = stream_of(source, failures)
    next(iter(stream))
    for _ in range(2):
        batches = list(stream)
        assert [len(batch.labels_B) for batch in batches] == [4, 4, 2]
        for batch in batches:
            for image, label, number in zip(batch.images_BHWC, batch.labels_B, batch.indices_B, strict=True):
                record = records[number]
                assert np.array_equal(image.numpy(), cache.reader.image(pixels[record.record_id]))
                assert label == record.label
    assert failures == []


def test_every_iterator_leaves_out_and_lists_the_same_files(tmp_path):
    source, failures = make_source(tmp_path / "source", NUM), []
    image_paths(source)[3].write_bytes(b"\x89PNG\r\n\x1a\n")
    stream = stream_of(source, failures)
    assert [sum(len(batch.labels_B) for batch in stream) for _ in range(2)] == [NUM - 1] * 2
    assert len(failures) == 2
    assert len(set(failures)) == 1


@pytest.mark.parametrize("name", ["batch_size", "num_threads"])
@pytest.mark.parametrize("wrong", [0, 1.5, True])
def test_arguments_are_checked(source, name, wrong):
    with pytest.raises(UsageError, match=f"{name} must be"):
        stream_of(source, [], **{name: wrong})
