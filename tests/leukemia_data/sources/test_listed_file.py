from __future__ import annotations

import os
from pathlib import Path

import pytest

from leukemia_data.sources.listed_file import FileFinder

needs_links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege here")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with cells/1.bmp, beside one that is outside and has the same."""
    for name in ("root", "root-too"):
        (tmp_path / name / "cells").mkdir(parents=True)
        (tmp_path / name / "cells" / "1.bmp").write_bytes(b"123")
    return tmp_path / "root"


def outside(root: Path) -> Path:
    return root.parent / "root-too" / "cells" / "1.bmp"


def test_state_of_a_file_and_of_none(root):
    finder = FileFinder(root)
    file = finder.find(" ./cells//1.bmp ")
    status = (root / "cells" / "1.bmp").stat()
    assert file.path == root / "cells" / "1.bmp"
    assert file.state == (3, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    for text in ("cells/2.bmp", "cells", "absent/1.bmp", "x" * 5000, "cells/1.bmp/1.bmp", "x" * 5000 + "/1.bmp"):
        assert finder.find(text).is_missing


def test_paths_that_stay_inside(root):
    finder = FileFinder(root)
    forms = ("cells/../cells/1.bmp", "../root/cells/1.bmp", str(root / "cells" / "1.bmp"), "cells\\1.bmp")
    assert {finder.find(form).key for form in forms} == {finder.find("cells/1.bmp").key}


@pytest.mark.parametrize("form", ["../root-too/cells/1.bmp", "cells/../../root-too/cells/1.bmp", "../absent.bmp", ""])
def test_paths_that_lead_out(root, form):
    text = form or str(outside(root))
    with pytest.raises(ValueError, match=r"leads out of .*--allow-outside"):
        FileFinder(root).find(text)
    file = FileFinder(root, allow_outside=True).find(text)
    assert file.is_missing == text.endswith("absent.bmp")


@needs_links
def test_links_that_lead_out(root):
    (root / "folder").symlink_to(outside(root).parent)
    (root / "file.bmp").symlink_to(outside(root))
    (root / "dangling.bmp").symlink_to(root.parent / "absent.bmp")
    for text in ("folder/1.bmp", "file.bmp", "dangling.bmp"):
        with pytest.raises(ValueError, match="leads out of"):
            FileFinder(root).find(text)
        assert FileFinder(root, allow_outside=True).find(text).is_missing == (text == "dangling.bmp")


@needs_links
def test_links_that_stay_inside_and_a_root_that_is_a_link(root):
    (root / "folder").symlink_to(root / "cells")
    (root / "cells" / "again.bmp").symlink_to("1.bmp")
    (root / "circle.bmp").symlink_to("circle.bmp")
    (root.parent / "alias").symlink_to(root)
    for start in (root, root.parent / "alias"):
        finder = FileFinder(start)
        first = finder.find("cells/1.bmp")
        assert finder.find("folder/1.bmp").key == first.key
        assert finder.find("cells/again.bmp").key != first.key
        assert finder.find("cells/again.bmp").state.size_bytes == 3
        assert finder.find(str(root / "cells" / "1.bmp")).key == first.key
        assert finder.find("circle.bmp").is_missing


@pytest.mark.skipif(os.name == "nt", reason="names may not have these letters here")
def test_the_very_name_goes_before_other_readings(root):
    finder = FileFinder(root)
    (root / "-1.bmp").write_bytes(b"1")
    assert finder.find("'-1.bmp").path == root / "-1.bmp"
    (root / "it\\is.bmp").write_bytes(b"12")
    assert finder.find("it\\is.bmp").state.size_bytes == 2
    for name in ("'-1.bmp", "cells\\1.bmp"):
        (root / name).write_bytes(b"x")
        with pytest.raises(ValueError, match="two files"):
            finder.find(name)


@pytest.mark.parametrize(("text", "words"), [("  ", "is empty"), ("a\nb.bmp", "line break"), ("a\x01b.bmp", "control")])
def test_no_path(root, text, words):
    with pytest.raises(ValueError, match=words):
        FileFinder(root).find(text)
