"""URLs: recognised, joined, and refused with credentials."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from leukemia_data.errors import UsageError
from leukemia_data.stores.url import Url, is_url, parse_location, parse_url


@pytest.mark.parametrize("text", ["s3://bucket/a", "GS://b", "az://c/d", "abfs://c@a.dfs/x", "memory://x", "file:///a"])
def test_what_has_a_scheme_is_an_address(text):
    assert is_url(text)


@pytest.mark.parametrize("text", [r"C:\cells", "c://cells", "cells", "/cells", "a/s3://b", "s3:/b", ""])
def test_paths_and_drives_are_none(text):
    assert not is_url(text)
    assert parse_location(text) == Path(text)


def test_parts_of_an_address():
    url = parse_url("S3://bucket/a//b/cell.1.BMP/")
    assert str(url) == "s3://bucket/a//b/cell.1.BMP"
    assert (url.name, url.stem, url.suffix) == ("cell.1.BMP", "cell.1", ".BMP")
    assert (str(url.bucket), url.key) == ("s3://bucket", "a//b/cell.1.BMP")
    assert str(url.parent) == "s3://bucket/a//b"
    assert str(url.parent / "x") == "s3://bucket/a//b/x"
    assert parse_url("s3://bucket").parent == parse_url("s3://bucket")
    assert (parse_url("s3://bucket").key, parse_url("s3://b/.bmp").suffix) == ("", "")


def test_nothing_of_a_name_is_folded_or_quoted():
    assert str(Url("s3", "b") / "./a//../ü ?#%20") == "s3://b/./a//../ü ?#%20"


def test_addresses_of_this_machine_are_paths():
    assert parse_location("file:///data/cells") == Path("/data/cells")


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("s3://key:secret-word@bucket/a", "secret-word"),
        ("s3://secret-word@bucket/a", "secret-word"),
        ("abfs://box:secret-word@account.dfs/a", "secret-word"),
        ("s3://bucket/a?X-Amz-Signature=secret-word", "secret-word"),
        ("s3://bucket/a#secret-word", "secret-word"),
    ],
)
def test_credentials_are_refused_and_not_repeated(text, hidden):
    with pytest.raises(UsageError) as raised:
        parse_url(text)
    assert hidden not in str(raised.value)
    assert "must not hold" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "reason"), [("s3://", "no bucket"), ("s3:///a", "no bucket"), ("cells", "no address")]
)
def test_what_is_no_address_is_refused(text, reason):
    with pytest.raises(UsageError, match=reason):
        parse_url(text)


def test_an_at_sign_in_a_name_is_a_letter():
    assert parse_url("s3://bucket/a@b").key == "a@b"
    assert parse_url("abfs://box@account.dfs.core.windows.net/a").bucket.path == "box@account.dfs.core.windows.net"


def test_addresses_are_values():
    url = parse_url("s3://b/a")
    assert pickle.loads(pickle.dumps(url)) == url
    assert len({url, parse_url("s3://b/a/")}) == 1
    assert sorted([parse_url("s3://b/b"), url]) == [url, parse_url("s3://b/b")]
