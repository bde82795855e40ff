"""Objects of a real S3 server, of memory and of a folder: read, written and listed, with faults."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fsspec.config import conf

from leukemia_data.errors import StorageError, UsageError
from leukemia_data.stores.faults import ConflictError, MissingObjectError, Retry
from leukemia_data.stores.object_store import ObjectStore, open_store
from leukemia_data.stores.url import parse_url

from ...object_server import DENIED, DROPPED, SERVER_ERROR, SLOW_DOWN, TRUNCATED, UNANSWERED, Fault

ODD_NAME = "a b/ü%20+&=?#'.bmp"


def no_wait(seconds: float) -> None:
    """Retries without waits."""


def store_at(url: str, num_attempts: int = 4) -> ObjectStore:
    return ObjectStore(parse_url(url), Retry(num_attempts=num_attempts, sleep=no_wait))


@pytest.fixture(params=["s3", "memory", "file"])
def store(request, tmp_path) -> ObjectStore:
    """An empty folder in each kind of store."""
    if request.param == "s3":
        return store_at(f"{request.getfixturevalue('s3').make_bucket()}/some folder")
    return store_at(f"memory://{tmp_path.name}-{id(request)}/x" if request.param == "memory" else tmp_path.as_uri())


def test_objects_are_what_was_written(store):
    for name, data in {"a": b"0123456789", ODD_NAME: b"x", "empty": b""}.items():
        store.write(name, data)
        assert store.read(name) == data
    assert {name: state.num_bytes for name, state in store.entries().items()} == {"a": 10, ODD_NAME: 1, "empty": 0}
    assert store.stat("a") == store.entries()["a"]
    assert store.stat("a").modified_ns > 0
    assert list(store.entries("a b")) == [ODD_NAME]
    assert store.folders() == ["a b"]
    assert store.below("a b").read(ODD_NAME.removeprefix("a b/")) == b"x"


def test_ranges_come_in_the_requested_order(store):
    store.write("a", bytes(range(256)))
    store.write("b", b"other")
    ranges = [("a", 250, 6), ("b", 0, 2), ("a", 0, 0), ("a", 3, 1)]
    assert store.read_ranges(ranges) == [bytes(range(250, 256)), b"ot", b"", b"\x03"]
    with pytest.raises(StorageError, match=r"a: given up after 4 attempts: 6 bytes came where 7 were requested"):
        store.read_ranges([("a", 250, 7)])


def test_files_are_copied_both_ways(store, tmp_path):
    # More than one chunk of a download.
    data, told = os.urandom((8 << 20) + 77), []
    (tmp_path / "from").write_bytes(data)
    store.upload("f", tmp_path / "from", told.append)
    store.download("f", tmp_path / "to", told.append)
    assert (tmp_path / "to").read_bytes() == data
    assert sum(told) == 2 * len(data)


def test_what_is_not_there(store, tmp_path):
    assert store.stat("x") is None
    assert store.entries() == {}
    assert store.folders() == []
    store.delete("x")
    for ask in (
        lambda: store.read("x"),
        lambda: store.read_ranges([("x", 0, 1)]),
        lambda: store.download("x", tmp_path / "y"),
    ):
        with pytest.raises(MissingObjectError, match="x: there is no such object"):
            ask()
    assert not list(tmp_path.glob("y*"))


def test_removed_objects_are_gone(store):
    for name in ("a", "b", "c"):
        store.write(name, b"x")
    store.delete("a", "c", "never")
    assert list(store.entries()) == ["b"]


def test_a_condition_decides_whether_an_object_is_replaced(store):
    store.write_over("a", b"first", None)
    first = store.stat("a")
    with pytest.raises(ConflictError, match="changed by another process"):
        store.write_over("a", b"another first", None)
    store.write_over("a", b"the second", first)
    with pytest.raises(ConflictError, match="changed by another process"):
        store.write_over("a", b"a late second", first)
    assert store.read("a") == b"the second"
    store.delete("a")
    with pytest.raises(ConflictError):
        store.write_over("a", b"x", first)
    assert store.stat("a") is None


def test_other_threads_and_copies_read_the_same(store):
    store.write("a", b"x" * 1000)
    copied = pickle.loads(pickle.dumps(store))
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: copied.read("a"), range(40))) == {b"x" * 1000}


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system forks no processes")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_opens_connections_of_its_own(s3):
    store = store_at(s3.make_bucket())
    store.write("a", b"x")
    context = multiprocessing.get_context("fork")
    child = context.Process(target=lambda: os._exit(7 if store.read("a") == b"x" else 1))
    child.start()
    child.join(30)
    assert child.exitcode == 7


@pytest.mark.parametrize("kind", [SERVER_ERROR, SLOW_DOWN, TRUNCATED, DROPPED])
def test_faults_are_met_by_another_attempt(faulty_s3, kind, tmp_path):
    store = store_at(faulty_s3.server.make_bucket())
    data = os.urandom(3000)
    (tmp_path / "f").write_bytes(data)
    for match, do, expected in [
        ("PUT .*/a", lambda: store.write("a", data), None),
        ("PUT .*/b", lambda: store.upload("b", tmp_path / "f"), None),
        ("GET .*/a", lambda: store.read("a"), data),
        ("GET .*/a", lambda: store.read_ranges([("a", 0, 5), ("b", 9, 2)]), [data[:5], data[9:11]]),
        ("GET .*list-type", lambda: sorted(store.entries()), ["a", "b"]),
    ]:
        # The answer to a PUT has no body to truncate.
        faulty_s3.faults[:] = [Fault(kind, match, times=2)] if (kind, match[0]) != (TRUNCATED, "P") else []
        assert do() == expected
        assert [fault.times for fault in faulty_s3.faults] in ([0], []), match
    faulty_s3.faults.clear()
    assert store.read("b") == data


def test_attempts_end_and_the_error_is_one_line(faulty_s3):
    store = store_at(faulty_s3.server.make_bucket(), num_attempts=3)
    faulty_s3.faults[:] = [Fault(SLOW_DOWN, "GET .*/a")]
    with pytest.raises(
        StorageError, match=r"^s3://[^ ]*/a: given up after 3 attempts: SlowDown: injected; check"
    ) as raised:
        store.read("a")
    assert "\n" not in str(raised.value)
    assert len(faulty_s3.seen("GET .*/a")) == 3


def test_denied_requests_are_not_repeated(faulty_s3):
    store = store_at(faulty_s3.server.make_bucket())
    faulty_s3.faults[:] = [Fault(DENIED, "GET .*/a")]
    with pytest.raises(StorageError, match=r"/a: the store denies it: AccessDenied: .*; check the credentials"):
        store.read("a")
    assert len(faulty_s3.seen("GET .*/a")) == 1


def test_a_conditional_write_whose_answer_was_lost_has_happened(faulty_s3):
    store = store_at(faulty_s3.server.make_bucket())
    # The server writes the object, and its answer does not arrive: the next attempt finds what the first one wrote.
    faulty_s3.faults[:] = [Fault(UNANSWERED, "PUT .*/a", times=1)]
    store.write_over("a", b"first", None)
    assert store.read("a") == b"first"


def test_pages_of_a_listing_are_followed(s3, monkeypatch):
    url = s3.make_bucket()
    names = [f"d/{number:02}" for number in range(25)]
    for name in names:
        s3.write(f"{url}/{name}", b"")
    store = store_at(url)
    # The server's pages have a thousand names unless a client wants smaller ones.
    ask, sizes = store._files.call_s3, []

    def ask_for_ten(method, **request):
        page = ask(method, MaxKeys=10, **request)
        sizes.append(len(page["Contents"]))
        return page

    monkeypatch.setattr(store._files, "call_s3", ask_for_ten)
    assert [name for name, _ in store.iterate()] == names
    assert sizes == [10, 10, 5]


def test_no_bucket_no_credentials_no_server(s3, monkeypatch):
    for ask in (lambda store: store.entries(), lambda store: store.read("a"), lambda store: store.write("a", b"")):
        with pytest.raises(MissingObjectError, match="no such bucket"):
            ask(store_at("s3://there-is-no-such-bucket/x"))
    url = s3.make_bucket()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match=r"no credentials were found: .*AWS_PROFILE"):
        store_at(url).entries()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA-of-nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-nobody")
    # No server listens there.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"given up after 2 attempts: .*127\.0\.0\.1:9") as raised:
        store_at(url, num_attempts=2).entries()
    assert "nobody" not in str(raised.value)


def test_a_missing_library_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match=r'gs:// needs a library .*pip install -e "\.\[gs\]"'):
        open_store("gs://bucket/x")
    # fsspec knows the second one, which an address alone does not open.
    for scheme in ("nonsense", "ftp"):
        with pytest.raises(UsageError, match=f"{scheme}:// is no kind of store that is known"):
            open_store(f"{scheme}://bucket/x")


def test_settings_that_the_library_refuses_are_one_line(monkeypatch):
    monkeypatch.setitem(conf, "s3", {"max_concurrency": 0})
    # Another environment: the open connection is not reused.
    monkeypatch.setenv("AWS_PROFILE", "one-of-its-own")
    with pytest.raises(StorageError, match=r"^s3://: max_concurrency must be >= 1$"):
        open_store("s3://bucket/x")


def test_a_scratch_file_that_cannot_be_removed_does_not_hide_why_it_was_left(tmp_path, monkeypatch):
    store = store_at(tmp_path.as_uri(), num_attempts=1)

    def fill_disk(path, data):
        raise OSError(28, "no space left")

    def refuse(path, missing_ok=False):
        raise PermissionError(13, "in use")

    monkeypatch.setattr(store._files, "pipe_file", fill_disk)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StorageError, match="no space left"):
        store.write("a", b"x")
