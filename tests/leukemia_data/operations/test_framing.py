from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from torchvision.transforms.v2.functional import resize as torchvision_resize

from leukemia_data.operations.clahe import Clahe, ClaheLightness
from leukemia_data.operations.filters import Unsharp
from leukemia_data.operations.framing import Box, Canvas, CropToCell, Fit, crop, find_cell, fit
from leukemia_data.operations.operation import Operation, Window
from leukemia_data.operations.recipe import Preprocessor, Recipe, load_recipe
from leukemia_data.operations.resizing import CenterCrop, Resize

PAD = (1, 2, 3)
SHAPES = [(450, 450), (300, 400), (601, 233), (97, 1000), (1, 5000), (5000, 1), (1, 1), (2, 3), (127, 128), (129, 128)]
FRAMINGS = [
    Canvas(side_px=90),
    Fit(),
    Fit(pad="white", method="antialias"),
    Fit(side_px=90),
    CropToCell(),
    CropToCell(side_px=90, margin=0.5, pad="black", method="antialias"),
]


def is_pad(image: np.ndarray) -> np.ndarray:
    return (image == PAD).all(axis=2)


def largest_difference(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.abs(first.astype(int) - second.astype(int)).max())


# --- fit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["area", "antialias"])
@pytest.mark.parametrize("side", [1, 31, 128, 224])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_fraction_of_padding_follows_from_the_aspect(shape, side, method):
    frame = np.full((*shape, 3), 200, np.uint8)
    image = fit(frame, side, PAD, method)
    assert image.shape == (side, side, 3)
    height, width = (max(int(length * side / max(shape) + 0.5), 1) for length in shape)
    padding = is_pad(image)
    assert side in (height, width)
    assert side**2 - padding.sum() == height * width
    assert (image[~padding] == 200).all()
    # Half a pixel of the shorter side, or the one pixel that it has at least.
    left = 1 - shape[0] * shape[1] / max(shape) ** 2
    assert abs(padding.mean() - left) <= 1 / side


def test_odd_remainders_of_the_padding_fall_below_and_right():
    frame = np.full((3, 8, 3), 200, np.uint8)
    padding = is_pad(fit(frame, 8, PAD))
    np.testing.assert_array_equal(padding.all(axis=1), [1, 1, 0, 0, 0, 1, 1, 1])
    padding = is_pad(fit(frame.transpose(1, 0, 2), 8, PAD))
    np.testing.assert_array_equal(padding.all(axis=0), [1, 1, 0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize("shape", [(300, 500), (700, 410), (100, 80)])
def test_circles_stay_circles_in_their_place(shape):
    side, centre, radius = 200, (shape[0] * 0.4, shape[1] * 0.6), min(shape) * 0.3
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
    image = fit(np.where(inside[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2), side, (0, 0, 0))
    weights = image[..., 0] / 255
    scale = side / max(shape)
    positions = np.arange(side) + 0.5
    middle = [(weights.sum(axis=axis) * positions).sum() / weights.sum() for axis in (1, 0)]
    expected = [(centre[k] - shape[k] / 2) * scale + side / 2 for k in (0, 1)]
    np.testing.assert_allclose(middle, expected, atol=0.6)
    spread = [((positions - middle[k]) ** 2 * weights.sum(axis=1 - k)).sum() / weights.sum() for k in (0, 1)]
    # A disc's variance along each axis is r^2 / 4.
    np.testing.assert_allclose(np.sqrt(np.multiply(spread, 4)), radius * scale, rtol=0.01)


@pytest.mark.parametrize(("shape", "side"), [((600, 450), 224), ((97, 61), 224), ((450, 450), 128), ((61, 97), 96)])
def test_antialias_is_within_one_grey_level_of_pillow_and_torchvision(make_noise, rng, shape, side):
    frame = make_noise(rng, *shape)
    height, width = (int(length * side / max(shape) + 0.5) for length in shape)
    image = fit(frame, side, PAD, "antialias")
    top, left = (side - height) // 2, (side - width) // 2
    image = image[top : top + height, left : left + width]
    pillow = np.asarray(PillowImage.fromarray(frame).resize((width, height), PillowImage.Resampling.BILINEAR))
    assert largest_difference(image, pillow) <= 1
    tensor_CHW = torch.from_numpy(frame.transpose(2, 0, 1).copy())
    torchvision = torchvision_resize(tensor_CHW, [height, width], antialias=True).permute(1, 2, 0).numpy()
    assert largest_difference(image, torchvision) <= 1


@pytest.mark.parametrize(("shape", "side"), [((600, 450), 224), ((450, 450), 128), ((451, 337), 199)])
def test_area_is_the_mean_under_each_pixel(make_noise, rng, shape, side):
    frame = make_noise(rng, *shape)
    height, width = (int(length * side / max(shape) + 0.5) for length in shape)
    image = fit(frame, side, PAD)[(side - height) // 2 :][:height, (side - width) // 2 :][:, :width]
    # The mean over each target pixel's share of the source, by sums up to every edge.
    rows, columns = (_edge_sums(length, count) for length, count in zip(shape, (height, width), strict=True))
    expected = (rows @ frame.transpose(2, 0, 1).astype(float) @ columns.T).transpose(1, 2, 0)
    assert np.abs(image - expected).max() <= 0.51


def _edge_sums(length: int, count: int) -> np.ndarray:
    """Share of each source pixel in each target pixel: (count, length), rows summing to one."""
    edges = np.arange(count + 1)[:, None] * (length / count)
    covered = np.clip(edges - np.arange(length), 0, 1)
    return np.diff(covered, axis=0) / (length / count)


@pytest.mark.parametrize(("shape", "side"), [((97, 61), 224), ((3, 2), 128), ((100, 100), 101)])
def test_area_enlarges_bilinearly(make_noise, rng, shape, side):
    frame = make_noise(rng, *shape)
    height, width = (int(length * side / max(shape) + 0.5) for length in shape)
    image = fit(frame, side, PAD)[(side - height) // 2 :][:height, (side - width) // 2 :][:, :width]
    pillow = np.asarray(PillowImage.fromarray(frame).resize((width, height), PillowImage.Resampling.BILINEAR))
    assert largest_difference(image, pillow) <= 1


def test_a_square_of_the_size_is_left_as_it_is(make_noise, rng):
    frame = make_noise(rng, 128, 128)
    np.testing.assert_array_equal(fit(frame, 128, PAD), frame)


@pytest.mark.parametrize(("pad", "expected"), [("black", [0] * 3), ("white", [255] * 3), ("border", None)])
def test_the_colour_of_the_padding(make_noise, rng, pad, expected):
    frame = make_noise(rng, 40, 60)
    outermost = np.concatenate([frame[0], frame[-1], frame[1:-1, 0], frame[1:-1, -1]])
    image = Preprocessor(Recipe("fit", (Fit(pad=pad),)), [60])(frame)[60]
    wanted = np.median(outermost, axis=0).astype(int) if expected is None else expected
    assert (image[:10] == wanted).all()
    assert (image[50:] == wanted).all()
    np.testing.assert_array_equal(image[10:50], frame)


# --- crop -----------------------------------------------------------------------------------------------------


def test_a_square_inside_the_frame_is_its_resized_pixels(make_noise, rng):
    frame = make_noise(rng, 200, 300)
    expected = cv2.resize(frame[20:140, 100:220], (64, 64), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(crop(frame, Box(20, 100, 140, 220), 64, PAD), expected)


@pytest.mark.parametrize("side", [1, 7, 64, 100, 101, 230])
@pytest.mark.parametrize(
    "square",
    [Box(-20, -30, 80, 70), Box(60, 90, 160, 190), Box(-50, -50, 250, 250), Box(99, 149, 199, 249), Box(-5, 40, 5, 50)],
)
def test_pixels_outside_the_frame_are_padding(square, side):
    frame = np.full((100, 150, 3), 200, np.uint8)
    padding = is_pad(crop(frame, square, side, PAD))
    scale = side / (square.bottom - square.top)
    expected = [
        (max(square.top, 0) - square.top) * scale,
        (max(square.left, 0) - square.left) * scale,
        (min(square.bottom, 100) - square.top) * scale,
        (min(square.right, 150) - square.left) * scale,
    ]
    rows, columns = np.flatnonzero(~padding.all(axis=1)), np.flatnonzero(~padding.all(axis=0))
    found = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
    # Edges to the nearest pixel; what is smaller than one has one.
    assert np.abs(np.subtract(found, expected)).max() <= (0.5 if min(expected[2:]) - max(expected[:2]) >= 1 else 1)
    assert (~padding).sum() == rows.size * columns.size


def test_a_square_of_the_same_side_moves_whole_pixels(make_noise, rng):
    frame = make_noise(rng, 100, 150)
    expected = np.full((80, 80, 3), PAD, np.uint8)
    expected[20:, 30:] = frame[:60, :50]
    np.testing.assert_array_equal(crop(frame, Box(-20, -30, 60, 50), 80, PAD), expected)


def test_crop_to_cell_centres_the_cell_with_its_margin():
    frame = np.full((300, 400, 3), (228, 216, 224), np.uint8)
    rows, columns = np.ogrid[:300, :400]
    is_drawn = (rows - 110) ** 2 + (columns - 250) ** 2 <= 50**2
    frame[is_drawn] = (96, 52, 128)
    image = Preprocessor(Recipe("cell", (CropToCell(margin=0.25),)), [150])(frame)[150]
    # 101 px and a quarter of it on each side, 152 px, become 150 px: the cell has 100 of them in the middle.
    is_cell = image[..., 0] < 160
    assert [int(is_cell.any(axis=axis).argmax()) for axis in (0, 1)] == pytest.approx([25, 25], abs=1)
    assert is_cell.any(axis=0).sum() == pytest.approx(100, abs=1)
    assert is_cell.sum() == pytest.approx(is_drawn.sum() * (150 / 152) ** 2, rel=0.02)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (60, 90)])
def test_without_a_cell_the_whole_frame_is_fitted(shape):
    frame = np.full((*shape, 3), 130, np.uint8)
    frame[:, : shape[1] // 2] = 140
    steps = CropToCell(pad="white"), Fit(pad="white")
    cell, fitted = (Preprocessor(Recipe("r", (step,)), [64])(frame)[64] for step in steps)
    np.testing.assert_array_equal(cell, fitted)


# --- in recipes -----------------------------------------------------------------------------------------------


def cell_photograph(rng: np.random.Generator) -> np.ndarray:
    """Noise on bright ground with a dark disc right of the middle: 97 x 140."""
    frame = np.full((97, 140, 3), (228, 216, 224), np.uint8)
    rows, columns = np.ogrid[:97, :140]
    frame[(rows - 40) ** 2 + (columns - 90) ** 2 <= 23**2] = (96, 52, 128)
    frame = (frame + rng.normal(0, 5, frame.shape)).clip(0, 255).astype(np.uint8)
    assert find_cell(frame) is not None
    return frame


@pytest.mark.parametrize("step", FRAMINGS, ids=repr)
def test_any_window_is_that_part_of_the_whole_square(rng, step):
    draw = step.draw(cell_photograph(rng))
    side = step.output_side(0, 64)
    whole = draw(side, Window.full(side))
    for window in (Window(0, 0, 5, side), Window(10, 20, 60, 41), Window(side - 1, 0, side, side)):
        np.testing.assert_array_equal(draw(side, window), window.cut(whole, Window.full(side)))


RECIPES: dict[str, tuple[Operation, ...]] = {
    "alone": (),
    "to a fixed side, then shared": (Clahe(tiles=3), Unsharp(sigma_px=1.0), CenterCrop(side_px=48), Resize()),
    "framed again": (ClaheLightness(tiles=4), Fit(), Unsharp(sigma_px=1.0)),
    "canvas after it": (ClaheLightness(tiles=4), Canvas(side_px=70), CenterCrop(side_px=40), Resize()),
    "cell after it": (CropToCell(margin=0.2), ClaheLightness(tiles=4)),
}


@pytest.mark.parametrize("steps", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("step", [Fit(), Fit(side_px=90), CropToCell(), CropToCell(side_px=90)], ids=repr)
def test_windows_and_sizes_give_the_whole_frame_s_pixels(rng, step, steps):
    sizes_px = (48, 64)
    recipe = Recipe("mine", (step, *steps, *([Resize()] if step.side_px and not steps else [])))
    limited, whole = Preprocessor(recipe, sizes_px), Preprocessor(recipe, sizes_px, limit_region=False)
    frame = cell_photograph(rng)
    before = frame.copy()
    results, expected = limited(frame), whole(frame)
    assert list(results) == list(sizes_px)
    for size_px in sizes_px:
        assert largest_difference(results[size_px], expected[size_px]) <= 4
        alone = Preprocessor(recipe, [size_px])(frame)[size_px]
        np.testing.assert_array_equal(results[size_px], alone)
        assert results[size_px].shape == (size_px, size_px, 3)
        assert results[size_px].flags.c_contiguous
    np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize("name", ["fit", "photo", "photo-cell"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 700), (1200, 1600)])
def test_presets_for_photographs_take_frames_of_any_shape(make_noise, rng, name, shape):
    images = Preprocessor(load_recipe(name), (128, 224))(make_noise(rng, *shape))
    assert [image.shape for image in images.values()] == [(128, 128, 3), (224, 224, 3)]


@pytest.mark.parametrize("size_px", [128, 224])
def test_the_padding_of_photo_stays_white_and_hue_stays(rng, size_px):
    frame = cell_photograph(rng)
    image = Preprocessor(load_recipe("photo"), [size_px])(frame)[size_px]
    fitted = fit(frame, size_px, (255, 255, 255))
    is_white = (fitted == 255).all(axis=2)
    assert is_white.mean() > 0.25
    assert (image[is_white] == 255).all()
    before, after = (cv2.cvtColor(pixels, cv2.COLOR_RGB2Lab).astype(int) for pixels in (fitted, image))
    assert np.abs(after - before)[..., 1:].mean() < 1.5
