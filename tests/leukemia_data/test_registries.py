"""Custom objects of each kind, registered from outside and used through the public API.

One section per kind.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from leukemia_data.augmenting.augment import Augmenter
from leukemia_data.augmenting.augmentation import Augmentation, load_augmentation
from leukemia_data.augmenting.geometry import Rotate
from leukemia_data.augmenting.operation import AUGMENTATIONS, CustomAugmentation, Range
from leukemia_data.building.process_engine import run_in_processes
from leukemia_data.caches.cache import SampleReader, open_cache
from leukemia_data.caches.codec import CODECS, StoredBytes
from leukemia_data.caches.shard import open_images
from leukemia_data.caches.verify import verify_cache
from leukemia_data.errors import CacheError, UsageError
from leukemia_data.operations.framing import Canvas
from leukemia_data.operations.operation import OPERATIONS, Image, Operation
from leukemia_data.operations.recipe import Preprocessor, Recipe, load_recipe
from leukemia_data.operations.resizing import CenterCrop, Resize
from leukemia_data.records.fingerprint import cache_fingerprint

from ..forked_python import forked_python
from .helpers import build, make_source, python_environment

SIZE = 16
MEAN, STD = (0.171, 0.1, 0.174), (0.201, 0.125, 0.195)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source", 12)


def pixels_of(directory: Path) -> NDArray[np.uint8]:
    """All images of a cache, (n, S, S, 3)."""
    cache = open_cache(directory)
    return SampleReader(cache).gather(np.arange(len(cache)))


# --- operations of recipes ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Posterize(Operation):
    """Keep a few grey levels."""

    op: ClassVar[str] = "posterize"
    version: ClassVar[int] = 1
    num_levels: int = 4

    def change(self, image_HWC: Image) -> Image:
        step = 256 // self.num_levels
        return image_HWC // step * step


@dataclass(frozen=True, kw_only=True)
class ShiftLeft(Operation):
    """Each pixel becomes its right neighbour; one pixel around a window decides it."""

    op: ClassVar[str] = "shift_left"

    @property
    def reach_px(self) -> int:
        return 1

    def change(self, image_HWC: Image) -> Image:
        return np.concatenate([image_HWC[:, 1:], image_HWC[:, -1:]], axis=1)


@pytest.fixture
def posterize() -> Iterator[None]:
    with OPERATIONS.temporarily("posterize", Posterize):
        yield


PLAIN = Recipe("plain", (Canvas(side_px=40), CenterCrop(side_px=SIZE)))
POSTERIZED = Recipe("mine", (Canvas(side_px=40), Posterize(num_levels=2), CenterCrop(side_px=SIZE)))


def test_an_operation_is_built_into_a_cache_by_two_processes(posterize, source, tmp_path):
    done = build(source, tmp_path / "two", sizes_px=[SIZE], recipe=POSTERIZED, engine=run_in_processes(2))
    alone = build(source, tmp_path / "one", sizes_px=[SIZE], recipe=POSTERIZED)
    without = build(source, tmp_path / "plain", sizes_px=[SIZE], recipe=PLAIN)
    first, second, third = (pixels_of(summary.caches[0].directory) for summary in (done, alone, without))
    assert np.array_equal(first, second)
    assert np.array_equal(first, third // 128 * 128)
    assert open_cache(done.caches[0].directory).manifest.recipe == POSTERIZED


def test_an_operation_stands_in_a_file(posterize, tmp_path):
    path = tmp_path / "mine.toml"
    text = '[[step]]\nop = "canvas"\nside_px = 40\n[[step]]\nop = "posterize"\nnum_levels = 2\n'
    path.write_text(f'{text}[[step]]\nop = "center_crop"\nside_px = {SIZE}\n')
    assert load_recipe(str(path)) == POSTERIZED
    assert Recipe.from_dict(POSTERIZED.to_dict()) == POSTERIZED
    path.write_text(text.replace("num_levels", "levels"))
    with pytest.raises(UsageError, match=r"mine\.toml, step 2.*posterize: unknown key 'levels'.*num_levels"):
        load_recipe(str(path))


def test_an_operation_s_version_is_in_the_fingerprint(posterize, monkeypatch):
    before, stored = cache_fingerprint(POSTERIZED, SIZE, "5.0.0"), POSTERIZED.to_dict()
    assert before != cache_fingerprint(Recipe("mine", (Canvas(side_px=40), Posterize())), SIZE, "5.0.0")
    monkeypatch.setattr(Posterize, "version", 2)
    assert cache_fingerprint(POSTERIZED, SIZE, "5.0.0") != before
    with pytest.raises(UsageError, match="posterize version 1, this installation has version 2"):
        Recipe.from_dict(stored)


def test_the_error_names_an_unknown_operation():
    with pytest.raises(UsageError, match=r"stored recipe 'mine'.*operation 'posterize' is not known here"):
        Recipe.from_dict(POSTERIZED.to_dict())


def test_windows_of_an_operation_hold_what_it_reaches(make_noise, rng):
    steps = (Canvas(side_px=60), ShiftLeft(), CenterCrop(side_px=31), Resize())
    frame = make_noise(rng, 60, 60)
    limited = Preprocessor(Recipe("mine", steps), [31])(frame)[31]
    assert np.array_equal(limited, frame[14:45, 15:46])


# --- augmentations --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Fade(CustomAugmentation):
    """Multiply all grey levels by one random factor."""

    name: ClassVar[str] = "fade"
    num_draws: ClassVar[int] = 1
    factor: Range = (0.25, 0.75)

    def apply(self, images_BCHW: Tensor, draws_BK: Tensor) -> Tensor:
        low, high = self.factor
        return images_BCHW * (low + (high - low) * draws_BK[:, 0])[:, None, None, None]


@pytest.fixture
def fade() -> Iterator[None]:
    with AUGMENTATIONS.temporarily("fade", Fade):
        yield


@pytest.fixture
def cells(make_frame, rng) -> Tensor:
    """Cells on black: (4, 48, 48, 3), uint8."""
    return torch.from_numpy(np.stack([make_frame(rng, 48, 48) for _ in range(4)]))


def grey_levels(augmentation: Augmentation, images: Tensor, indices: Tensor, epoch: int = 0) -> Tensor:
    """Augmented images on the scale 0..1: (B, 3, S, S)."""
    augment = Augmenter(augmentation, seed=1, mean=(0, 0, 0), std=(1, 1, 1), device="cpu")
    return augment(images, epoch, indices)


def test_an_augmentation_changes_samples_after_all_others_by_draws_of_its_own(fade):
    images, indices = torch.full((400, 8, 8, 3), 200, dtype=torch.uint8), torch.arange(400)
    shipped = {"rotate": Rotate(p=0.5, degrees=90.0)}
    plain = grey_levels(Augmentation(name="plain", **shipped), images, indices)
    faded = grey_levels(Augmentation(name="mine", custom=(Fade(p=0.5),), **shipped), images, indices)
    factors = faded[:, 0, 4, 4] / plain[:, 0, 4, 4]
    assert torch.allclose(faded, plain * factors[:, None, None, None], atol=1e-5)
    changed = factors < 0.99
    assert 150 < changed.sum() < 250
    assert 0.25 <= factors.min() < 0.3
    assert 0.7 < factors[changed].max() <= 0.75
    augmentation = Augmentation(name="mine", custom=(Fade(p=0.5),), **shipped)
    assert not torch.equal(grey_levels(augmentation, images, indices, epoch=1), faded)


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_an_augmentation_does_not_depend_on_the_batch_and_compiles_once(fade, cells, p):
    augmentation = replace(load_augmentation("report-b"), custom=(Fade(p=p),))
    indices, order = torch.tensor([50, 3, 999, 7]), torch.tensor([3, 0])
    augment = Augmenter(augmentation, seed=1, mean=MEAN, std=STD, device="cpu")
    expected = augment(cells, 0, indices)
    assert torch.equal(augment(cells[order], 0, indices[order]), expected[order])
    if p == 0:
        plain = Augmenter(replace(augmentation, custom=()), seed=1, mean=MEAN, std=STD, device="cpu")
        assert torch.equal(plain(cells, 0, indices), expected)
    counter = CompileCounter()
    augment.apply = torch.compile(augment.apply, backend=counter, fullgraph=True)
    for _ in range(2):
        assert torch.equal(augment(cells, 0, indices), expected)
    assert counter.frame_count == 1


def test_an_augmentation_stands_in_a_file(fade, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[fade]\np = 0.5\nfactor = [0.1, 1]\n[rotate]\np = 1\ndegrees = 20\n")
    augmentation = load_augmentation(str(path))
    own = Fade(p=0.5, factor=(0.1, 1.0))
    assert augmentation == Augmentation(name="mine", rotate=Rotate(p=1.0, degrees=20.0), custom=(own,))
    path.write_text(augmentation.to_toml())
    assert load_augmentation(str(path)) == augmentation
    assert Augmentation.from_dict(augmentation.to_dict()) == augmentation
    path.write_text("[fade]\np = 0.5\nfactors = [0.1, 1]\n")
    with pytest.raises(UsageError, match=r"mine\.toml \[fade\]: unknown key 'factors' \(did you mean 'factor'"):
        load_augmentation(str(path))


def test_the_error_names_an_unknown_augmentation():
    augmentation = Augmentation(name="mine", custom=(Fade(p=0.5),))
    with pytest.raises(UsageError, match="unknown key 'fade'"):
        Augmentation.from_dict(augmentation.to_dict())


def test_one_operation_comes_once():
    with pytest.raises(UsageError, match="custom has an operation twice: fade, fade"):
        Augmentation(name="mine", custom=(Fade(p=0.5), Fade(p=0.1)))
    with pytest.raises(UsageError, match="custom must be operations derived from"):
        Augmentation(name="mine", custom=(Rotate(p=0.5, degrees=3),))


# --- codecs ---------------------------------------------------------------------------------------------------------


class DeflateCodec:
    """HDF5's own filter 1: one zlib stream per image."""

    name = "deflate"
    hdf5_filter = (1, (6,))

    @property
    def library_versions(self) -> Mapping[str, str]:
        return {"zlib": zlib.ZLIB_RUNTIME_VERSION}

    def encode(self, image_SSC: NDArray[np.uint8]) -> bytes:
        return zlib.compress(image_SSC.tobytes(), 6)

    def decode(self, stored: StoredBytes, out: NDArray[np.uint8]) -> None:
        try:
            pixels = np.frombuffer(zlib.decompress(stored), np.uint8)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if pixels.size != out.size:
            raise ValueError(f"it holds {pixels.size} pixel values, not {out.size}")
        out[:] = pixels

    def stored_length(self, stored: StoredBytes, image_bytes: int) -> int:
        stream = zlib.decompressobj()
        stream.decompress(stored)
        return len(stored) - len(stream.unused_data)


def test_a_codec_stores_a_cache_that_any_hdf5_tool_reads(source, tmp_path):
    plain = build(source, tmp_path / "raw", sizes_px=[SIZE]).caches[0]
    with CODECS.temporarily("deflate", DeflateCodec()):
        stored = build(source, tmp_path / "deflated", sizes_px=[SIZE], codec="deflate").caches[0]
        assert stored.manifest.codec == "deflate"
        assert stored.manifest.fingerprint == plain.manifest.fingerprint
        assert stored.manifest.library_versions["zlib"] == zlib.ZLIB_RUNTIME_VERSION
        assert np.array_equal(pixels_of(stored.directory), pixels_of(plain.directory))
        assert verify_cache(stored.directory, num_threads=1, progress=print).damages == ()
        path = stored.directory / stored.manifest.shards[0].name
        assert open_images(path).codec == "deflate"
        with h5py.File(path) as file:
            assert np.array_equal(file["images"], pixels_of(plain.directory)[: len(file["images"])])
    with pytest.raises(UsageError, match="unknown codec 'deflate'; known are raw, zstd"):
        pixels_of(stored.directory)


# --- the documents' examples, found by entry points -----------------------------------------------------------------


def blocks(page: str, language: str) -> list[str]:
    """Code of the section "Custom operations" of a page."""
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    section = text.split("## Custom operations")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def install(site: Path, code: str, entry_point: str) -> dict[str, str]:
    """Make a folder of installed packages with the module ``my_operations``, and the environment that has it."""
    info = site / "mine-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "my_operations.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_point)
    environment = python_environment()
    return {**environment, "PYTHONPATH": os.pathsep.join([str(site), environment["PYTHONPATH"]])}


@dataclass(frozen=True, kw_only=True)
class Gamma(Operation):
    """What the document's example is called here."""

    op: ClassVar[str] = "gamma"
    exponent: float = 0.8


def test_the_operation_of_the_document_is_built_by_the_command_line_and_its_workers(source, tmp_path):
    [code], [recipe_text, project] = blocks("recipes.md", "python"), blocks("recipes.md", "toml")
    [(group, points)] = tomllib.loads(project)["project"]["entry-points"].items()
    environment = install(tmp_path / "site", code, f"[{group}]\nmine = {points['mine']}\n")
    recipe, cache_root = tmp_path / "mine.toml", tmp_path / "cache"
    recipe.write_text(recipe_text)
    command = [*forked_python(), "-m", "cli.ldata", "build", source, "--recipe", recipe, "--cache", cache_root]
    line = [*map(str, command), "--size", str(SIZE), "--n-jobs", "2"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [directory] = (path.parent for path in cache_root.rglob("manifest.json"))
    with pytest.raises(CacheError, match="operation 'gamma' is not known here"):
        open_cache(directory)
    plain = Recipe("plain", (Canvas(), CenterCrop()))
    before = pixels_of(build(source, tmp_path / "plain", sizes_px=[SIZE], recipe=plain).caches[0].directory)
    with OPERATIONS.temporarily("gamma", Gamma):
        assert np.array_equal(pixels_of(directory), np.rint(255 * (before / 255) ** 0.7))


def test_the_augmentation_of_the_document_is_found_and_applied(tmp_path):
    [code] = blocks("augmentation.md", "python")
    environment = install(tmp_path / "site", code, "[leukemia_cells]\nmine = my_operations\n")
    path = tmp_path / "mine.toml"
    path.write_text("[gamma]\np = 1\nexponent = [0.5, 0.5]\n")
    program = f"""
import torch
from leukemia_data.augmenting.augment import Augmenter
from leukemia_data.augmenting.augmentation import load_augmentation
augment = Augmenter(load_augmentation({str(path)!r}), seed=0, mean=(0, 0, 0), std=(1, 1, 1), device="cpu")
print(float(augment(torch.full((2, 8, 8, 3), 64, dtype=torch.uint8), 0, torch.arange(2)).mean()))
"""
    done = subprocess.run([*forked_python(), "-c", program], env=environment, capture_output=True, text=True)
    assert float(done.stdout) == pytest.approx((64 / 255) ** 0.5, abs=1e-5), done.stderr


def test_an_entry_point_that_cannot_be_imported_is_named(tmp_path):
    environment = install(
        tmp_path / "site", "import a_module_that_is_absent\n", "[leukemia_cells]\nmine = my_operations\n"
    )
    line = [sys.executable, "-m", "cli.ldata", "recipes", "gamma.toml"]
    (tmp_path / "gamma.toml").write_text('[[step]]\nop = "canvas"\n[[step]]\nop = "gamma"\n')
    done = subprocess.run(line, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "the entry point mine = my_operations cannot be imported: No module named 'a_module_that" in done.stderr
    assert done.stderr.count("\n") == 1
