from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leukemia_data.caches.manifest import (
    MANIFEST_NAME,
    IndexEntry,
    Manifest,
    QuarantinedImage,
    ShardEntry,
    cache_dir_name,
    find_current,
    find_manifest,
    is_as_written,
    load_manifest,
    missing_files,
    save_manifest,
    source_state,
)
from leukemia_data.errors import CacheError
from leukemia_data.files.atomic import FileState
from leukemia_data.operations.recipe import load_recipe
from leukemia_data.records.fingerprint import LOOKS_VERSION, lines_digest
from leukemia_data.records.record import Record

UNDECODABLE = b"f\xfcnf.bmp".decode("utf-8", "surrogateescape")
MANIFEST = Manifest(
    name="C-NMC größe",
    size_px=1,
    fingerprint="0123456789abcdef" * 4,
    recipe=load_recipe("report-a"),
    classes=("hem", "all"),
    shards=(
        ShardEntry("shard-a.h5", 3, 2048 + 3 * 3, "aa", 2048, "a" * 32),
        ShardEntry("shard-b.h5", 2, 2048 + 2 * 3 + 7, "bb", 2048, "b" * 32),
    ),
    index=IndexEntry("index-c.h5", 11, "cc"),
    quarantined=(QuarantinedImage("細胞/1.bmp", "the file is empty"),),
    library_versions={"opencv": "5.0.0"},
    source_state="dd",
    looks_version=LOOKS_VERSION,
)


def test_a_manifest_of_a_release_without_looks_is_read_and_not_current(tmp_path):
    old = replace(MANIFEST, looks_version=0, quarantined=())
    save_manifest(tmp_path, old)
    assert "looks_version" not in (tmp_path / "manifest.json").read_text(encoding="utf-8")
    assert load_manifest(tmp_path) == old
    assert (old.has_looks, old.is_current("dd")) == (False, False)
    assert replace(old, looks_version=LOOKS_VERSION).is_current("dd")
    assert not replace(old, looks_version=LOOKS_VERSION + 1).has_looks
    change(tmp_path, lambda content: content.update(looks_version="1"))
    with pytest.raises(CacheError, match="damaged"):
        load_manifest(tmp_path)


def change(folder: Path, edit: Callable[[dict[str, Any]], Any], *, sign: bool = True) -> None:
    """Edit the stored manifest's JSON; signed, its digest is right again, as if another version had written it."""
    path = folder / MANIFEST_NAME
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    if sign:
        content["digest"] = lines_digest([json.dumps({**content, "digest": None}, sort_keys=True)])
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def cache_dir(tmp_path) -> Path:
    """Folder with a manifest and files of the sizes that it names."""
    save_manifest(tmp_path, MANIFEST)
    for name, num_bytes in (("shard-a.h5", 2057), ("shard-b.h5", 2061), ("index-c.h5", 11)):
        (tmp_path / name).write_bytes(bytes(num_bytes))
    return tmp_path


# --- round trip -----------------------------------------------------------------------------------------------


def test_round_trip(cache_dir):
    assert load_manifest(cache_dir) == MANIFEST
    assert find_manifest(cache_dir) == MANIFEST


def test_round_trip_without_a_source_state_and_of_an_empty_cache(tmp_path):
    manifest = replace(MANIFEST, source_state=None, shards=(), quarantined=())
    save_manifest(tmp_path, manifest)
    assert load_manifest(tmp_path) == manifest


def test_ids_that_are_not_utf_8_survive(tmp_path):
    manifest = replace(MANIFEST, quarantined=(QuarantinedImage(UNDECODABLE, "the file is empty"),))
    save_manifest(tmp_path, manifest)
    assert load_manifest(tmp_path) == manifest


def test_counts_are_written_out_for_people(cache_dir):
    content = json.loads((cache_dir / MANIFEST_NAME).read_text(encoding="utf-8"))
    assert (content["num_samples"], content["num_quarantined"]) == (5, 1)
    assert (MANIFEST.num_samples, MANIFEST.num_bytes) == (5, 2057 + 2061 + 11)
    assert MANIFEST.file_names() == {"manifest.json", "shard-a.h5", "shard-b.h5", "index-c.h5"}


def test_saving_replaces_whole_and_leaves_nothing_else(tmp_path):
    save_manifest(tmp_path, MANIFEST)
    save_manifest(tmp_path, replace(MANIFEST, name="second"))
    assert load_manifest(tmp_path).name == "second"
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_NAME]


def test_equal_manifests_are_equal_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_manifest(tmp_path / name, MANIFEST)
    assert (tmp_path / "a" / MANIFEST_NAME).read_bytes() == (tmp_path / "b" / MANIFEST_NAME).read_bytes()


def test_directory_names():
    assert cache_dir_name(224, "0123456789abcdef" * 4) == "224-0123456789ab"


# --- absent, damaged, foreign ---------------------------------------------------------------------------------


def test_no_manifest_is_no_cache(tmp_path):
    assert find_manifest(tmp_path) is None
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CacheError, match=r"no manifest\.json"):
            load_manifest(folder)


def test_a_manifest_cut_anywhere_is_an_error(cache_dir):
    path = cache_dir / MANIFEST_NAME
    content = path.read_bytes()
    for end in range(0, len(content) - 2, 37):
        path.write_bytes(content[:end])
        with pytest.raises(CacheError, match=r"manifest\.json"):
            load_manifest(cache_dir)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"null", b"{}", b'"x"', b'{"format": "other"}'])
def test_other_files_of_that_name_are_no_manifest(tmp_path, content):
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(CacheError, match=r"manifest\.json"):
        load_manifest(tmp_path)


@pytest.mark.parametrize("version", [0, 4, "1", True, 1.5, None, [], "x" * 50])
def test_another_format_version_is_refused(cache_dir, version):
    change(cache_dir, lambda content: content.update(format_version=version))
    with pytest.raises(CacheError, match="version"):
        load_manifest(cache_dir)


KEYS = ["name", "size_px", "fingerprint", "recipe", "classes", "shards", "index", "quarantined", "library_versions"]


@pytest.mark.parametrize("key", [*KEYS, "source_state", "codec", "shard_capacity"])
def test_a_missing_entry_is_damage(cache_dir, key):
    change(cache_dir, lambda content: content.pop(key))
    with pytest.raises(CacheError, match="damaged"):
        load_manifest(cache_dir)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size_px", "big"),
        ("size_px", None),
        ("recipe", []),
        ("recipe", {"name": "x", "steps": [5]}),
        ("recipe", {"name": "x", "steps": []}),
        ("recipe", {"name": "x", "steps": [{"op": "canvas"}]}),
        ("recipe", {"name": "x", "steps": [{"op": "gabor", "version": 1}]}),
        ("classes", 5),
        ("shards", [5]),
        ("shards", [{"name": "shard-a.h5"}]),
        (
            "shards",
            [{"name": "shard-a.h5", "num_samples": 1, "num_bytes": "9", "digest": "aa", "images_offset_bytes": 0}],
        ),
        (
            "shards",
            [{"name": "shard-a.h5", "num_samples": "1", "num_bytes": 9, "digest": "aa", "images_offset_bytes": 0}],
        ),
        (
            "shards",
            [{"name": "shard-a.h5", "num_samples": -1, "num_bytes": 9, "digest": "aa", "images_offset_bytes": 0}],
        ),
        ("shards", [{"name": 7, "num_samples": 1, "num_bytes": 9, "digest": "aa", "images_offset_bytes": 0}]),
        ("index", None),
        ("index", {"name": "index-c.h5", "num_bytes": -1, "digest": "cc"}),
        ("quarantined", [{"record_id": "x"}]),
        ("library_versions", 5),
    ],
)
def test_a_wrong_entry_is_damage(cache_dir, key, value):
    change(cache_dir, lambda content: content.update({key: value}))
    with pytest.raises(CacheError, match=r"manifest\.json"):
        load_manifest(cache_dir)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size_px", True),
        ("size_px", 0),
        ("size_px", 1.0),
        ("size_px", 2**20),
        ("name", 5),
        ("fingerprint", None),
        ("classes", ["hem", 1]),
        ("classes", [["hem"], "all"]),
        ("classes", "hem"),
        ("library_versions", {"opencv": 5}),
        ("quarantined", [{"record_id": 3, "reason": "x"}]),
        ("quarantined", [{"record_id": "x", "reason": None}]),
        ("index", {"name": "index-c.h5", "num_bytes": 2**63, "digest": "cc"}),
        ("index", {"name": "index-c.h5", "num_bytes": 5, "digest": 7}),
    ],
)
def test_a_value_of_another_kind_or_beyond_all_files_is_damage(cache_dir, key, value):
    change(cache_dir, lambda content: content.update({key: value}))
    with pytest.raises(CacheError, match=r"manifest\.json is damaged"):
        load_manifest(cache_dir)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_samples": 4},
        {"num_samples": 2**61},
        {"num_samples": True},
        {"images_offset_bytes": 2049},
        {"num_bytes": 2056},
        {"metadata_digest": 5},
        {"digest": None},
    ],
)
def test_images_that_have_no_room_in_their_shard_are_damage(cache_dir, changes):
    change(cache_dir, lambda content: content["shards"][0].update(changes))
    with pytest.raises(CacheError, match=r"manifest\.json is damaged: ValueError shard-a\.h5"):
        load_manifest(cache_dir)


def test_sizes_whose_sum_no_disk_holds_are_damage(cache_dir):
    change(cache_dir, lambda content: [shard.update(num_bytes=2**61 + 1) for shard in content["shards"]])
    with pytest.raises(CacheError, match="the files would have"):
        load_manifest(cache_dir)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"format": 1e999}', "9" * 5000])
def test_json_that_exceeds_parsers_is_a_cache_error(tmp_path, text):
    (tmp_path / MANIFEST_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(CacheError, match=r"manifest\.json"):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("codec", "gzip"), ("codec", None), ("codec", 0), ("shard_capacity", 0), ("shard_capacity", "128")],
)
def test_an_unknown_layout_is_damage(cache_dir, key, value):
    change(cache_dir, lambda content: content.update({key: value}))
    with pytest.raises(CacheError, match=key):
        load_manifest(cache_dir)


def test_layout_survives(cache_dir):
    shards = tuple(
        replace(shard, chunks_num_bytes=shard.num_samples * 3, chunk_lengths_offset_bytes=10)
        for shard in MANIFEST.shards
    )
    manifest = replace(MANIFEST, codec="zstd", shards=shards, shard_capacity=1024)
    save_manifest(cache_dir, manifest)
    assert load_manifest(cache_dir) == manifest
    assert manifest.compression_ratio == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"chunks_num_bytes": 10},
        {"chunks_num_bytes": None},
        {"chunks_num_bytes": -1},
        {"chunks_num_bytes": True},
        {"chunks_num_bytes": 0},
        {"chunk_lengths_offset_bytes": "10"},
        {"chunk_lengths_offset_bytes": None},
        {"chunk_lengths_offset_bytes": 2057 - 3 * 4 + 1},
    ],
)
def test_chunks_that_have_no_room_in_their_shard_are_damage(cache_dir, changes):
    shards = tuple(
        replace(shard, chunks_num_bytes=shard.num_samples * 3, chunk_lengths_offset_bytes=2057 - 3 * 4)
        for shard in MANIFEST.shards
    )
    save_manifest(cache_dir, replace(MANIFEST, codec="zstd", shards=shards))
    load_manifest(cache_dir)
    change(cache_dir, lambda content: content["shards"][0].update(changes))
    with pytest.raises(CacheError, match=r"manifest\.json is damaged: ValueError shard-a\.h5"):
        load_manifest(cache_dir)


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_shards_of_another_codec_than_the_manifests_are_damage(cache_dir, codec):
    chunks = {"chunks_num_bytes": 9, "chunk_lengths_offset_bytes": 10} if codec == "raw" else {}
    change(cache_dir, lambda content: content.update(codec=codec))
    change(cache_dir, lambda content: [shard.update(chunks) for shard in content["shards"]])
    with pytest.raises(CacheError, match=f"do not fit the codec {codec}"):
        load_manifest(cache_dir)


def test_raw_manifests_do_not_speak_of_chunks(cache_dir):
    assert "chunk" not in (cache_dir / MANIFEST_NAME).read_text(encoding="ascii")


def as_version_2(content: dict[str, Any]) -> None:
    content["format_version"] = 2
    del content["codec"], content["shard_capacity"]


def test_manifest_of_the_second_version_is_raw_and_current(cache_dir):
    save_manifest(cache_dir, replace(MANIFEST, quarantined=()))
    change(cache_dir, as_version_2)
    assert load_manifest(cache_dir) == replace(MANIFEST, quarantined=())
    assert find_current(cache_dir, "dd") is not None


def as_version_1(content: dict[str, Any]) -> None:
    content["format_version"] = 1
    for shard in content["shards"]:
        del shard["metadata_digest"]


def test_manifest_of_the_first_version_is_read_and_known_to_lack_digests(cache_dir):
    change(cache_dir, as_version_1)
    manifest = load_manifest(cache_dir)
    assert [shard.metadata_digest for shard in manifest.shards] == [None, None]
    assert replace(manifest, shards=MANIFEST.shards) == MANIFEST
    assert (manifest.is_up_to_date, MANIFEST.is_up_to_date) == (False, True)


def test_manifest_of_the_first_version_is_not_current(cache_dir):
    save_manifest(cache_dir, replace(MANIFEST, quarantined=()))
    assert find_current(cache_dir, "dd") is not None
    change(cache_dir, as_version_1)
    assert find_current(cache_dir, "dd") is None


def test_as_written_means_the_very_bytes(cache_dir):
    assert is_as_written(cache_dir)
    change(cache_dir, lambda content: None, sign=False)
    assert not is_as_written(cache_dir)


@pytest.mark.parametrize("offset", ["0", -1, None, 1.5])
def test_a_wrong_offset_of_the_pixels_is_damage(cache_dir, offset):
    change(cache_dir, lambda content: content["shards"][0].update(images_offset_bytes=offset))
    with pytest.raises(CacheError, match="damaged"):
        load_manifest(cache_dir)


def flip_letter(content: dict[str, Any]) -> None:
    content["classes"][0] = "hen"


def test_a_flipped_letter_in_a_value_shows(cache_dir):
    change(cache_dir, flip_letter, sign=False)
    with pytest.raises(CacheError, match="digest"):
        load_manifest(cache_dir)


def test_reformatting_is_no_damage(cache_dir):
    change(cache_dir, lambda content: None, sign=False)
    assert load_manifest(cache_dir) == MANIFEST


@pytest.mark.parametrize(
    "name",
    [
        *("../other.h5", "a/b.h5", "/etc/passwd", "..", ".", "", "..\\other.h5", "C:\\x.h5", "sub/../x.h5"),
        *("CON", "C:shard-a.h5", "shard-a.h5:stream", "shard-a.h5\n", "shard-\x00.h5", "manifest.json", ".lock"),
    ],
)
def test_names_that_leave_the_directory_are_refused(cache_dir, name):
    change(cache_dir, lambda content: content["shards"][0].update(name=name))
    with pytest.raises(CacheError, match="leaves"):
        load_manifest(cache_dir)
    save_manifest(cache_dir, MANIFEST)
    change(cache_dir, lambda content: content["index"].update(name=name))
    with pytest.raises(CacheError, match="leaves"):
        load_manifest(cache_dir)


def test_a_recipe_of_another_operation_version_is_a_cache_error(cache_dir):
    change(cache_dir, lambda content: content["recipe"]["steps"][1].update(version=2))
    with pytest.raises(CacheError, match="version 2"):
        load_manifest(cache_dir)


# --- files ----------------------------------------------------------------------------------------------------


def test_files_of_another_size_and_absent_ones_are_missing(cache_dir):
    assert missing_files(cache_dir, MANIFEST) == []
    (cache_dir / "shard-b.h5").write_bytes(bytes(6))
    (cache_dir / "index-c.h5").unlink()
    assert missing_files(cache_dir, MANIFEST) == ["shard-b.h5", "index-c.h5"]


def test_only_a_whole_cache_of_this_state_without_quarantine_is_current(cache_dir):
    assert find_current(cache_dir, "dd") is None
    clean = replace(MANIFEST, quarantined=())
    save_manifest(cache_dir, clean)
    assert find_current(cache_dir, "dd") == clean
    assert find_current(cache_dir, "other") is None
    (cache_dir / "shard-a.h5").unlink()
    assert find_current(cache_dir, "dd") is None
    (cache_dir / MANIFEST_NAME).write_text("damaged", encoding="utf-8")
    assert find_current(cache_dir, "dd") is None
    assert find_current(cache_dir / "absent", "dd") is None


# --- state of a source ----------------------------------------------------------------------------------------


RECORDS = [
    Record("a.bmp", Path("/one/a.bmp"), 1, "1", "train", 0, FileState(10, 100, 7, 5)),
    Record("b.bmp", Path("/one/b.bmp"), 0, "H1", "train", 0, FileState(11, 101, 7, 6)),
]


@pytest.mark.parametrize(
    "changes",
    [
        {"record_id": "c.bmp"},
        {"label": 0},
        {"subject": "2"},
        {"split": "valid"},
        {"fold": 1},
        *({"state": FileState(10, 100, 7, 5)._replace(**{name: 4})} for name in FileState._fields),
    ],
)
def test_every_change_of_a_record_changes_the_state(changes):
    before = source_state(("hem", "all"), RECORDS)
    assert source_state(("hem", "all"), [replace(RECORDS[0], **changes), RECORDS[1]]) != before


def test_added_and_removed_images_and_renamed_classes_change_the_state():
    states = {
        source_state(("hem", "all"), RECORDS),
        source_state(("hem", "all"), RECORDS[:1]),
        source_state(("hem", "all"), [*RECORDS, replace(RECORDS[0], record_id="c.bmp")]),
        source_state(("normal", "all"), RECORDS),
        source_state(("all", "hem"), RECORDS),
        source_state(("hem", "all"), []),
    }
    assert len(states) == 6


def test_place_and_order_do_not_change_the_state():
    moved = [replace(record, path=Path("/two") / record.record_id) for record in reversed(RECORDS)]
    assert source_state(("hem", "all"), moved) == source_state(("hem", "all"), RECORDS)


def test_the_state_is_that_of_this_release():
    """Quotes, letters of several bytes and bytes that are no UTF-8; any other state has all caches planned anew."""
    records = [
        Record("b'/\"\\ü.bmp", Path("x"), 1, "p'1", "train", 2, FileState(608_454, 1_600_000_000_000_000_001, 5, -7)),
        Record('a"\udcff\u20ac.bmp', Path("y"), -1, "", "", -1),
        Record("a'.bmp", Path("z"), 0, 'q"', "valid", 0, FileState(0, 0)),
    ]
    assert source_state(("hem", 'a"ü'), records) == "df7ca245591337c67679c48e6aa08c60"


def test_a_line_end_in_an_id_cannot_forge_another_listing():
    first = [Record("a\nb", Path("x"))]
    second = [Record("a", Path("x")), Record("b", Path("x"))]
    assert source_state((), first) != source_state((), second)
