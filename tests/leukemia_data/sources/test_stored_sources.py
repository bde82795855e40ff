"""Sources in a store: listed like the same folders and tables on a disk, and read on demand."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from leukemia_data.decoding.decode import read_file, read_record
from leukemia_data.errors import ImageError, SourceError, UsageError
from leukemia_data.files.atomic import FileState
from leukemia_data.records.record import Record
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import SourceListing, list_images, list_source
from leukemia_data.stores.object_store import StoredUrl, stored_url
from leukemia_data.stores.url import parse_url

TREES = [
    ("training/fold_0/all/UID_1_1_1_all.bmp", "training/fold_1/hem/UID_H2_1_1_hem.bmp", "prelim/1.bmp"),
    ("wrapper/blast/p1/a.png", "wrapper/blast/p2/b.png", "wrapper/normal/p1/a.PNG", "wrapper/__MACOSX/normal/x.png"),
    ("train/a/1.png", "valid/a/.hidden.png", "test/b/2.tif", "test/b/._2.png", "train/b/ü %20 #.png"),
    ("train_merged/all/UID_1_1_1_all.bmp", "fold_0/all/UID_1_1_1_all.bmp", "train_merged/hem/UID_H1_1_1_hem.bmp"),
]


@pytest.fixture
def bucket(tmp_path) -> StoredUrl:
    """An empty folder of a store in memory."""
    return stored_url(parse_url(f"memory://{tmp_path.name}-{id(tmp_path)}/data"))


def put(folder: Path, url: StoredUrl) -> None:
    """Copy all files of a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            url.store.write(path.relative_to(folder).as_posix(), path.read_bytes())


def told(listing: SourceListing) -> list[Record]:
    """The records, without what differs between places of the same files."""
    return [replace(record, path=Path(), state=FileState(record.state.size_bytes)) for record in listing.records]


@pytest.mark.parametrize("names", TREES)
def test_a_tree_is_listed_as_on_a_disk(tmp_path, bucket, write_tree, names):
    root = write_tree(tmp_path / "data", *names)
    put(root, bucket)
    local, stored = list_source([root]), list_source([bucket])
    assert told(stored) == told(local)
    assert (stored.name, stored.classes, stored.notes) == (local.name, local.classes, local.notes)
    for here, there in zip(local.records, stored.records, strict=True):
        assert there.path.read_bytes() == here.path.read_bytes()
        assert read_record(there).data.tobytes() == here.path.read_bytes()


def test_label_tables_in_the_tree_are_read(tmp_path, bucket, write_tree):
    root = write_tree(tmp_path / "data", "prelim/1.bmp", "prelim/2.bmp")
    table = "Patient_ID,new_names,labels\nUID_57_29_1_all.bmp,1.bmp,1\nUID_H3_1_2_hem.bmp,2.bmp,0\n"
    (root / "labels.csv").write_text(table, encoding="utf-8")
    put(root, bucket)
    assert [(r.label, r.subject, r.split) for r in list_source([bucket]).records] == [
        (1, "57", "valid"),
        (0, "H3", "valid"),
    ]
    assert told(list_source([bucket])) == told(list_source([root]))


def test_several_sources_and_names_with_empty_parts(bucket, tmp_path, write_tree):
    root = write_tree(tmp_path / "here", "a/1.png")
    for name in ("a/x//1.png", "a/x/1.png", "b/2.png"):
        bucket.store.write(name, name.encode())
    records = list_source([root, bucket], options=ReadingOptions(class_level=1)).records
    assert [record.record_id for record in records] == [
        "data/a/x//1.png",
        "data/a/x/1.png",
        "data/b/2.png",
        "here/a/1.png",
    ]
    assert [record.path.read_bytes() for record in records[:2]] == [b"a/x//1.png", b"a/x/1.png"]
    assert pickle.loads(pickle.dumps(records)) == records


@pytest.mark.parametrize("where", ["table and images", "images", "table"])
def test_tables_name_objects_as_they_name_files(where, tmp_path, bucket, write_tree):
    root = write_tree(tmp_path / "data", "test/1.bmp", "test/2.bmp", "test/UID_1_2_3_all.bmp")
    text = 'Path,label\n./test/1.bmp,0\n"test\\2.bmp",1\ntest//UID_1_2_3_all.bmp,\ntest/gone.bmp,1\n'
    (root / "train.csv").write_text(text, encoding="utf-8")
    put(root, bucket)
    local = list_source([root / "train.csv"])
    tables = {"images": root / "train.csv"}.get(where, bucket / "train.csv")
    images = {"table and images": None, "images": bucket, "table": root}[where]
    listing = list_source([tables], root=images)
    assert told(listing) == told(local)
    assert (listing.name, [record.is_missing for record in listing.records].count(True)) == ("data", 1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("../other/1.bmp", "leads out of memory://"),
        ("/etc/1.bmp", "leads out of memory://"),
        ("s3://elsewhere/1.bmp", "leads out of memory://"),
        ("a\x07.bmp", "control character"),
    ],
)
def test_paths_that_lead_elsewhere_are_refused(bucket, text, problem):
    bucket.store.write("1.bmp", b"x")
    bucket.store.write("t.csv", f"Path,label\n1.bmp,0\n{text},1\n".encode())
    with pytest.raises(SourceError, match=rf"t\.csv.*{problem}.*line 3"):
        list_source([bucket / "t.csv"], allow_outside=True)


def test_a_url_below_the_root_is_a_path_and_double_meanings_are_noted(bucket):
    for name in ("d/1.bmp", "d\\1.bmp", "d/2.bmp"):
        bucket.store.write(name, b"x")
    bucket.store.write("t.csv", f"Path,label\n{bucket}/d/2.bmp,0\n".encode())
    [record] = list_source([bucket / "t.csv"]).records
    assert str(record.path) == f"{bucket}/d/2.bmp"
    # An existing name is used as written.
    bucket.store.write("t.csv", b"Path,label\nd\\1.bmp,0\n")
    [record] = list_source([bucket / "t.csv"]).records
    assert record.path.name == "d\\1.bmp"


def test_what_is_not_there(bucket):
    with pytest.raises(SourceError, match=r"no images below memory://.*/data: looked for"):
        list_source([bucket])
    with pytest.raises(UsageError, match=r"source not found: memory://.*/t\.csv"):
        list_source([bucket / "t.csv"])
    with pytest.raises(UsageError, match=r"source not found: memory://.*/1\.png"):
        list_images([bucket / "1.png"])


def test_single_images_are_described_by_their_names(bucket):
    bucket.store.write("UID_7_1_1_all.bmp", b"xyz")
    [record] = list_images([bucket / "UID_7_1_1_all.bmp"])
    assert (record.label, record.subject, record.state.size_bytes) == (1, "7", 3)


def test_objects_that_changed_or_vanished_are_no_images(bucket):
    bucket.store.write("a/1.png", b"xyz")
    [record] = list_source([bucket]).records
    bucket.store.write("a/1.png", b"longer")
    with pytest.raises(ImageError, match="changed after it was listed"):
        read_record(record)
    bucket.store.delete("a/1.png")
    with pytest.raises(ImageError, match="the file is missing"):
        read_file(record.path)


def test_versions_of_one_second_have_different_states(s3):
    url = stored_url(parse_url(s3.make_bucket()))
    url.store.write("a/1.png", b"one")
    [before] = list_source([url]).records
    url.store.write("a/1.png", b"two")
    [after] = list_source([url]).records
    assert before.state.size_bytes == after.state.size_bytes
    assert before.state.mtime_ns != after.state.mtime_ns
    assert (before.state.ctime_ns, before.state.inode) == (0, 0)
    url.store.write("a/2.png", b"2")
    assert list_source([url]).records[0] == after


def test_listing_touches_no_object(faulty_s3):
    url = stored_url(parse_url(faulty_s3.server.make_bucket()))
    for number in range(5):
        url.store.write(f"a/{number}.png", b"x")
    faulty_s3.requests.clear()
    assert len(list_source([url]).records) == 5
    assert len(faulty_s3.requests) == 1
    assert "list-type" in faulty_s3.requests[0]
