"""Fixtures of several test modules. Plain functions are values of fixtures: no test imports this file."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

# Pictures are compared with stored numbers: Intel's library in OpenCV gives other pixels where a processor has AVX-512.
os.environ.setdefault("OPENCV_IPP", "avx2")

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from leukemia_data.records.sample_table import SampleTable
from leukemia_data.sources.sample_set import write_sample

from .forked_python import ADDRESS, start_server
from .object_server import FaultyProxy, ObjectServer, faulty_proxy, running_server

if os.name != "nt":
    import pwd

Frame = np.ndarray

# The duration of an example depends on the machine's load.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def pytest_configure(config: pytest.Config) -> None:
    """Let all workers of pytest-xdist share one process that forks interpreters."""
    if config.getoption("numprocesses", None) and sys.platform.startswith("linux"):
        os.environ[ADDRESS] = start_server()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that hold slow tests: a long one at the end would keep a single process busy."""
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow_files)


def pytest_collection_finish() -> None:
    """Leave what has been imported out of every later garbage collection."""
    gc.collect()
    gc.freeze()


def _make_frame(rng: np.random.Generator, height: int = 450, width: int = 450) -> Frame:
    """Textured ellipse of cell-like size on exact-zero background: (height, width, 3), uint8, RGB.

    Sixty times cheaper than a generated cell; textured in all three channels, and off centre.
    """
    small = rng.integers(40, 230, (max(height // 12, 2), max(width // 12, 2), 3), dtype=np.uint8)
    texture = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    texture = (texture + rng.integers(-12, 13, texture.shape)).clip(1, 255)
    rows, columns = np.ogrid[:height, :width]
    centre_row, centre_column = height * rng.uniform(0.42, 0.58), width * rng.uniform(0.42, 0.58)
    radius_row, radius_column = height * rng.uniform(0.18, 0.25), width * rng.uniform(0.18, 0.25)
    inside = ((rows - centre_row) / radius_row) ** 2 + ((columns - centre_column) / radius_column) ** 2 < 1
    return np.where(inside[..., None], texture, 0).astype(np.uint8)


def _make_noise(rng: np.random.Generator, height: int = 450, width: int = 450) -> Frame:
    """Independent uniform noise: the hardest frame for anything that computes windows. (height, width, 3), uint8."""
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _write_image(path: Path, image_HWC: Frame) -> Path:
    """Write RGB (H, W, 3) or grey (H, W) pixels in the format of the path's suffix; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_colour = image_HWC.ndim == 3
    is_encoded, data = cv2.imencode(path.suffix.lower(), image_HWC[..., ::-1] if is_colour else image_HWC)
    assert is_encoded
    path.write_bytes(data.tobytes())
    return path


def _make_table(
    subjects: list[str],
    labels: list[int],
    *,
    splits: list[str] | None = None,
    pixels: list[int] | None = None,
    looks: Sequence[object] | None = None,
) -> SampleTable:
    """Sample table with ids 0, 1, 2, ...; samples with equal numbers in `pixels` have equal pixel digests."""
    n = len(subjects)
    numbers = np.array(list(range(n)) if pixels is None else pixels, np.uint64)
    digests = np.zeros((n, 16), np.uint8)
    digests[:, :8] = numbers[:, None].view(np.uint8)
    return SampleTable(
        ids=np.array([str(k).encode() for k in range(n)], "S12"),
        subjects=np.array([subject.encode() for subject in subjects], "S32"),
        splits=np.array([split.encode() for split in (splits or [""] * n)], "S8"),
        labels=np.array(labels, np.int16),
        folds=np.full(n, -1, np.int16),
        channel_sums=np.zeros((n, 3), np.uint64),
        channel_square_sums=np.zeros((n, 3), np.uint64),
        crcs=np.zeros(n, np.uint32),
        source_digests=np.zeros((n, 16), np.uint8),
        pixel_digests=digests,
        looks=np.zeros((n, 64), np.int8) if looks is None else np.array(looks, np.int8),
    )


@pytest.fixture(scope="session", autouse=True)
def _no_flushing() -> Iterator[None]:
    """Leave out flushing to disk, which waits for what all processes write; tests of it look at the calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    """Fresh generator with a fixed seed."""
    return np.random.default_rng(20190408)


@pytest.fixture(scope="session")
def make_frame() -> Callable[..., Frame]:
    """``make_frame(rng, height=450, width=450)``: a cheap cell-like RGB frame."""
    return _make_frame


@pytest.fixture(scope="session")
def make_noise() -> Callable[..., Frame]:
    """``make_noise(rng, height=450, width=450)``: an RGB frame of uniform noise."""
    return _make_noise


@pytest.fixture(scope="session")
def write_image() -> Callable[[Path, Frame], Path]:
    """``write_image(path, image_HWC)``: an image file of the suffix's format; parent folders are made."""
    return _write_image


@pytest.fixture(scope="session")
def write_tree(write_image: Callable[[Path, Frame], Path]) -> Callable[..., Path]:
    """``write_tree(root, *paths)``: tiny grey-level images of different content at the paths below a folder."""

    def write(root: Path, *paths: str) -> Path:
        for number, path in enumerate(paths):
            write_image(root / path, np.full((2, 3, 3), number % 250 + 1, np.uint8))
        return root

    return write


@pytest.fixture(scope="session")
def make_table() -> Callable[..., SampleTable]:
    """``make_table(subjects, labels, splits=None, pixels=None)``: a sample table without pixels."""
    return _make_table


@pytest.fixture(scope="session")
def sample_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a generated sample: 8 subjects with 4 cells each, 450x450 BMPs. Read it, never change it."""
    out_dir = tmp_path_factory.mktemp("sample")
    write_sample(out_dir, num_subjects=8, cells_per_subject=4, seed=0)
    return out_dir


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """An empty folder that every user of this machine can reach, as folders of pytest's own cannot be."""
    # On the file system of the other folders of tests.
    folder = Path(tempfile.mkdtemp(prefix="shared-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def without_rights() -> Callable[[Path], AbstractContextManager[None]]:
    """``with without_rights(folder):`` the user of the tests may read the folder and not write to it.

    Root, which no permission restricts, becomes another user meanwhile.
    """
    if os.name == "nt":
        pytest.skip("Windows has no such permissions")

    @contextmanager
    def limit(folder: Path) -> Iterator[None]:
        modes = {path: path.stat().st_mode for path in (folder, *folder.rglob("*"))}
        for path, mode in modes.items():
            path.chmod(mode & ~0o222)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(pwd.getpwnam("nobody").pw_uid)
        try:
            yield
        finally:
            if is_root:
                os.seteuid(0)
            for path, mode in modes.items():
                path.chmod(mode)

    return limit


@pytest.fixture(scope="session")
def object_server() -> Iterator[ObjectServer]:
    """An S3 server on loopback. Name it to a test's libraries by the fixture ``s3`` or ``faulty_s3``."""
    with running_server() as server:
        yield server


def _point_to(server: ObjectServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    # The user's profiles and local copies must not be used either.
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("LDATA_LOCAL_COPIES", str(folder / "stage"))


@pytest.fixture
def s3(object_server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectServer:
    """The S3 server, set in the environment for this test's libraries."""
    _point_to(object_server, tmp_path, monkeypatch)
    return object_server


@pytest.fixture
def faulty_s3(object_server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy before the S3 server, set in the environment, which injects the given ``faults``."""
    with faulty_proxy(object_server) as proxy:
        _point_to(proxy.server, tmp_path, monkeypatch)
        yield proxy


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real C-NMC images, for tests marked ``real``."""
    folder = os.environ.get("LEUKEMIA_REAL_DATA")
    if not folder:
        pytest.skip("LEUKEMIA_REAL_DATA is not set: it names a folder with real C-NMC images")
    if not Path(folder).is_dir():
        pytest.fail(f"LEUKEMIA_REAL_DATA names {folder}, which is no folder")
    return Path(folder)
