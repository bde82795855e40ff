"""A custom kind of source, read through the public API."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from leukemia_data.errors import UsageError
from leukemia_data.records.record import FoundImage, ImagePlace
from leukemia_data.sources.image_rows import list_image_rows
from leukemia_data.sources.kinds import SOURCE_KINDS, ReadRequest, kind_of
from leukemia_data.sources.source import list_images, list_source
from leukemia_data.sources.tree import describe_file
from leukemia_data.sources.tree_folders import PartReading
from leukemia_data.sources.tree_images import Tree

from ..helpers import image_paths, make_source


class FileLists:
    """Text files with one path a line; the parent folder's name is the class."""

    name = "list"
    is_table = False

    def matches(self, place: ImagePlace) -> bool:
        return isinstance(place, Path) and place.suffix == ".list" and place.is_file()

    def read(self, places: Sequence[Tree], request: ReadRequest) -> list[PartReading]:
        return [PartReading([self._image(Path(line)) for line in _lines(place)]) for place in places]

    def _image(self, path: Path) -> FoundImage:
        return describe_file(path)._replace(class_name=path.parts[-3])


def _lines(place: Tree) -> list[str]:
    assert isinstance(place.root, Path)
    return place.root.read_text().splitlines()


@pytest.fixture
def file_list(tmp_path: Path) -> Path:
    paths = image_paths(make_source(tmp_path / "source", 8))
    path = tmp_path / "cells.list"
    path.write_text("\n".join(map(str, paths)))
    return path


def test_a_custom_kind(file_list, tmp_path):
    with pytest.raises(UsageError, match=r"neither a folder nor a \.csv table"):
        list_source([file_list])
    with SOURCE_KINDS.temporarily("list", FileLists()):
        listing = list_source([file_list])
        assert listing.classes == ("blast", "normal")
        assert len(listing.records) == 8
        assert len(list_images([file_list])) == len(list_image_rows([file_list])) == 8
        assert [record.label for record in listing.records] == [
            listing.classes.index(record.path.parts[-3]) for record in listing.records
        ]


def test_the_latest_kind_is_tried_first(tmp_path):
    class Mine(FileLists):
        def matches(self, place: ImagePlace) -> bool:
            return True

    assert kind_of(tmp_path).name == "tree"
    mine = Mine()
    with SOURCE_KINDS.temporarily("list", mine):
        assert kind_of(tmp_path) is mine
    assert SOURCE_KINDS.names() == ("tree", "table")
