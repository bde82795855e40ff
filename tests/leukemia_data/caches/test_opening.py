"""Caches at a path or a URL are found and chosen alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from leukemia_data.building.garbage import collect_garbage
from leukemia_data.building.repair import convert, repair
from leukemia_data.caches.manifest import load_manifest
from leukemia_data.caches.opening import (
    LocalCopiesChoice,
    choose_cache,
    find_caches,
    fingerprints,
    list_caches,
    open_chosen_cache,
)
from leukemia_data.caches.summary import cache_statistics, describe_cache
from leukemia_data.caches.transfer import pull, push
from leukemia_data.caches.verify import verify
from leukemia_data.errors import CacheError, UsageError
from leukemia_data.stores.object_store import open_store
from leukemia_data.stores.url import Url

from ..consoles import ListConsole
from ..helpers import build, cache_dir, make_source


@pytest.fixture
def root(tmp_path) -> Path:
    build(make_source(tmp_path / "source", 24), tmp_path / "cache", sizes_px=(16, 24))
    return tmp_path / "cache"


def test_choose_takes_the_only_one_that_fits(root):
    assert choose_cache(cache_dir(root)).location == cache_dir(root)
    assert choose_cache(root, size_px=24).location == cache_dir(root, 24)
    assert choose_cache(root / "cells", size_px=16).location == cache_dir(root, 16)


def test_choose_lists_several(root):
    with pytest.raises(UsageError) as caught:
        choose_cache(root)
    assert str(cache_dir(root, 16)) in str(caught.value)
    assert str(cache_dir(root, 24)) in str(caught.value)


def test_choose_lists_the_caches_where_none_fits(root, tmp_path):
    with pytest.raises(CacheError, match=r"no cache of 128 px.*24-"):
        choose_cache(root, size_px=128)
    with pytest.raises(CacheError, match="no cache of 24 px"):
        choose_cache(cache_dir(root, 16), size_px=24)
    with pytest.raises(CacheError, match="make one with `ldata build SOURCE`"):
        choose_cache(tmp_path / "absent")


# --- folders and stores alike -----------------------------------------------------------------------------------


NAME = "a#b"


@pytest.fixture
def url(root) -> Url:
    """The same caches in a store, of a name that no user could write in an address."""
    build(root.parent / "source", root.parent / "named", sizes_px=(16, 24), name=NAME)
    folder = Url("memory", f"{root.parent.name}-{id(root)}")
    for size in (16, 24):
        push(cache_dir(root.parent / "named", size, NAME), folder)
    return folder


def test_a_found_address_is_never_read_as_text_again(root, url, tmp_path):
    # `list` finds it below its bucket: whatever is done there must take the same address.
    named, copies = tmp_path / "named", LocalCopiesChoice(tmp_path / "copies")
    found = list_caches(url)
    assert [cache.manifest for cache in found] == [load_manifest(cache_dir(named, size, NAME)) for size in (16, 24)]
    assert all("a#b" in str(cache.location) for cache in found)
    assert len(fingerprints(url)) == 2
    with open_chosen_cache(url, copies, size_px=16) as cache:
        assert describe_cache(cache)["num_samples"] == 24
        assert cache_statistics(cache, "all").counts["all"].images == 24
        assert repr(cache).endswith(f"location={found[0].location})")
    report = verify(url, size_px=16)
    assert (report.directory, report.damages) == (found[0].location, ())
    pulled = pull(url, tmp_path / "pulled", size_px=16)
    assert pulled.source == found[0].location
    assert verify(pulled.target).damages == ()
    assert push(cache_dir(named, 16, NAME), url).num_sent == 0
    assert collect_garbage(url, remove=True, now_ns=1 << 62).garbage == ()


def test_an_unreadable_cache_gets_a_note_and_hides_no_other(root, url):
    (cache_dir(root, 16) / "manifest.json").write_text("{}", encoding="utf-8")
    open_store(find_caches(url)[0]).write("manifest.json", b"{}")
    for location in (root, url):
        console = ListConsole()
        assert [cache.manifest.size_px for cache in list_caches(location, console=console)] == [24]
        [note] = console.notes
        assert "manifest.json" in note
        assert choose_cache(location, size_px=24).manifest.size_px == 24


def test_what_is_for_folders_refuses_addresses_in_one_line(url):
    calls = (
        lambda: repair(url),
        lambda: convert(url),
        lambda: verify(url, quick=True),
    )
    for call in calls:
        with pytest.raises(UsageError) as caught:
            call()
        assert str(url) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_errors_of_several_and_no_caches_in_a_store_are_those_of_a_folder(url):
    with pytest.raises(UsageError, match="several caches"):
        choose_cache(url)
    with pytest.raises(CacheError, match=r"no cache of 99 px.*ldata push"):
        choose_cache(url, size_px=99)
