import importlib.metadata
from pathlib import Path

import pytest

from leukemia_data.building.build_caches import build_caches
from leukemia_data.records.fingerprint import installed_opencv_distributions, opencv_conflict

from ..consoles import ListConsole
from ..helpers import make_source


@pytest.fixture
def site(tmp_path: Path):
    """Make a folder of installed distributions with the given names and versions."""

    def make(**versions: str) -> list[str]:
        for name, version in versions.items():
            folder = tmp_path / f"{name}-{version}.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
            )
        return [str(tmp_path)]

    return make


def test_one_distribution_beside_other_libraries_is_fine(site):
    path = site(opencv_python_headless="4.11.0", numpy="2.1.0", opencv_python_rolling="1.0")
    assert installed_opencv_distributions(path) == ["opencv-python-headless 4.11.0"]
    assert opencv_conflict(path) is None


def test_none_is_no_conflict(site):
    assert opencv_conflict(site(numpy="2.1.0")) is None


def test_two_distributions_are_named_with_their_versions(site):
    found = opencv_conflict(site(opencv_python_headless="4.11.0", opencv_contrib_python="4.10.0"))
    assert found is not None
    assert "opencv-python-headless 4.11.0, opencv-contrib-python 4.10.0" in found


def test_this_environment_is_looked_at_without_a_path():
    version = importlib.metadata.version("opencv-python-headless")
    assert f"opencv-python-headless {version}" in installed_opencv_distributions()


def test_a_build_with_something_to_do_warns_of_two_distributions(site, tmp_path, monkeypatch):
    source = make_source(tmp_path / "source", 4)

    def is_warned(size_px: int) -> bool:
        console = ListConsole()
        build_caches([source], sizes_px=[size_px], recipe="raw", cache_root=tmp_path / "c", n_jobs=1, console=console)
        return any("opencv-contrib-python 4.10.0" in text for text in console.warnings)

    assert not is_warned(16)
    monkeypatch.syspath_prepend(*site(opencv_contrib_python="4.10.0"))
    assert is_warned(24)
    assert not is_warned(24)
