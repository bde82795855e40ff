from __future__ import annotations

from pathlib import Path

import pytest

import leukemia_data as ld
from leukemia_data.api.arguments import as_location, as_path, as_sizes, as_sources, place_of
from leukemia_data.stores.object_store import StoredUrl
from leukemia_data.stores.url import parse_url


def test_places_are_texts_paths_and_addresses():
    assert as_location("cells", "source") == as_location(Path("cells"), "source") == Path("cells")
    assert as_location("s3://bucket/cells", "source") == parse_url("s3://bucket/cells")
    assert as_location(parse_url("s3://bucket/cells"), "source") == parse_url("s3://bucket/cells")
    path, url = as_sources(["cells", "memory://cells"])
    assert path == Path("cells")
    assert isinstance(url, StoredUrl)
    assert place_of("cache") == Path("cache")


def test_sizes_are_one_or_several():
    assert as_sizes(64) == [64]
    assert as_sizes((64, 128)) == [64, 128]


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: as_location(3, "cache"), "cache must be a path or an address, got 3"),
        (lambda: as_location("", "cache"), "cache must be"),
        (lambda: as_path("s3://bucket/x", "out"), "out must be a path on this machine, got s3://bucket/x"),
        (lambda: as_sources([]), "sources: name at least one"),
        (lambda: as_sizes("64"), "sizes must be"),
        (lambda: ld.open_cache(None), "location must be"),
        (lambda: ld.build("cells", sizes=[0]), "sizes must be at least 1"),
        (lambda: ld.audit(), "nothing to audit"),
        (lambda: ld.verify(b"cache"), "cache must be"),
    ],
)
def test_wrong_ones_are_named(use, words):
    with pytest.raises(ld.UsageError, match=words):
        use()


def test_a_missing_cache_is_an_error_of_one_line(tmp_path):
    with pytest.raises(ld.LeukemiaError, match="no cache of 96 px at") as caught:
        ld.open_cache(tmp_path / "nosuch", size=96)
    assert len(str(caught.value).splitlines()) == 1
