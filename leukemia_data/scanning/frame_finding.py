"""Traits of frames, and whether they alone predict the class."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from leukemia_data.errors import listed
from leukemia_data.scanning.class_prediction import MIN_GROUPS, predict_classes
from leukemia_data.scanning.frame_notes import SIZE_FEATURES, WORTH_SAYING, SizedRecipe
from leukemia_data.sources.reading import FrameFinding

_ORIENTATION_TAG, _FIRST_TURNED = 274, 5
_DARK, _BRIGHT = 8, 96
_TIFF = (b"II", b"MM")
_READERS: dict[bytes, tuple[str, type[ImageFile]]] = {
    b"BM": ("BMP", BmpImageFile),
    b"\x89PNG": ("PNG", PngImageFile),
    b"\xff\xd8": ("JPEG", JpegImageFile),
    **dict.fromkeys(_TIFF, ("TIFF", TiffImageFile)),
}


@dataclass(frozen=True, slots=True)
class Ground:
    """The outermost pixels of a frame.

    Attributes
    ----------
    rgb
        Median of each channel, 0 ... 255, robust to a cell that touches the border.
    spread
        Interquartile range of the brightest channel, 0 ... 255.
    black_share
        Fraction of these pixels that are exactly zero, 0 ... 1.
    name
        ``black``, ``grey`` or ``bright``, by the median of the brightest channel.
    """

    rgb: tuple[float, float, float]
    spread: float
    black_share: float
    name: str


@dataclass(frozen=True, slots=True)
class FrameTraits:
    """Properties of an image file apart from its cell.

    Attributes
    ----------
    height_px, width_px
        Size after applying the orientation.
    mode
        Pillow's name of the file's mode, such as ``RGB`` or ``L``.
    file_format
        ``BMP``, ``PNG``, ``JPEG`` or ``TIFF``.
    ground
        None if the frame was not decoded.
    """

    height_px: int
    width_px: int
    mode: str
    file_format: str
    ground: Ground | None = None

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width."""
        return self.height_px, self.width_px


def read_traits(file: Path | NDArray[np.uint8], frame_HWC: NDArray[np.uint8] | None = None) -> FrameTraits:
    """Read the header of a file, or of its bytes, and measure the ground of its decoded frame if given.

    Raises
    ------
    ValueError
        If the format is unsupported. For damaged files, any exception of Pillow's readers.
    """
    # PIL.Image.open would warn about large images for the whole process.
    with file.open("rb") if isinstance(file, Path) else io.BytesIO(file.data) as stream:
        start = stream.read(4)
        file_format, reader = next((found for magic, found in _READERS.items() if start.startswith(magic)), ("", None))
        if reader is None:
            raise ValueError("no image")
        stream.seek(0)
        picture = reader(stream)
        width, height = picture.size
        # Pillow applies the orientation of TIFF itself.
        if not start.startswith(_TIFF) and picture.getexif().get(_ORIENTATION_TAG, 1) >= _FIRST_TURNED:
            height, width = width, height
        ground = None if frame_HWC is None else measure_ground(frame_HWC)
        return FrameTraits(height, width, picture.mode, file_format, ground)


def measure_ground(frame_HWC: NDArray[np.uint8]) -> Ground:
    """Measure the outermost pixels of an RGB frame."""
    edge = np.concatenate([frame_HWC[0], frame_HWC[-1], frame_HWC[1:-1, 0], frame_HWC[1:-1, -1]])
    brightest = edge.max(axis=1)
    low, level, high = (float(value) for value in np.percentile(brightest, (25, 50, 75)))
    red, green, blue = (float(value) for value in np.median(edge, axis=0))
    name = "black" if level <= _DARK else "bright" if level >= _BRIGHT else "grey"
    return Ground((red, green, blue), high - low, float((brightest == 0).mean()), name)


MIN_IMAGES = 8
"""Minimal images per class: with fewer, too many sources are separated by chance."""
MAX_IMAGES = 20_000
_GROUND_FEATURES = frozenset({"ground", "spread of the ground", "exact black in the ground"})


@dataclass(frozen=True, slots=True)
class SeenFrame:
    """One frame with its class and subject (empty if unknown)."""

    traits: FrameTraits
    class_name: str
    subject: str


def find_telling_frames(
    frames: Sequence[SeenFrame], recipe: SizedRecipe | None = None, *, seed: int = 0
) -> FrameFinding | None:
    """Test whether frames predict the class.

    Parameters
    ----------
    frames
        Frames of known classes. If some were decoded, only those are used; of very many, an evenly spaced sample.
    recipe
        Of the cache, if known.
    seed
        Of the folds.

    Returns
    -------
    FrameFinding or None
        None if fewer than two classes have :data:`MIN_IMAGES` frames.
    """
    has_ground = any(frame.traits.ground is not None for frame in frames)
    counted = [frame for frame in frames if frame.traits.ground is not None or not has_ground]
    step = -(-len(counted) // MAX_IMAGES)
    counted = counted[:: step or 1]
    counts = Counter(frame.class_name for frame in counted)
    names = [name for name in dict.fromkeys(frame.class_name for frame in counted) if counts[name] >= MIN_IMAGES]
    if len(names) < 2:
        return None
    counted = [frame for frame in counted if frame.class_name in names]
    labels_N = np.array([names.index(frame.class_name) for frame in counted], np.int64)
    groups_N, folds_by = _groups(counted, names)
    columns = frame_features([frame.traits for frame in counted], recipe)
    features_NF = np.stack([values for _, values in columns], axis=1)
    found = predict_classes(features_NF, labels_N, groups_N, seed=seed)
    features = tuple(dict.fromkeys(columns[number][0] for number in found.features))
    return FrameFinding(
        balanced_accuracy=round(found.balanced_accuracy, 4),
        low=round(found.low, 4),
        high=round(found.high, 4),
        num_images=len(counted),
        folds_by=folds_by,
        features=features,
        classes=tuple(
            (name, _described([frame.traits for frame in counted if frame.class_name == name], features, recipe))
            for name in names
        ),
    )


def frame_features(
    traits: Sequence[FrameTraits], recipe: SizedRecipe | None = None
) -> list[tuple[str, NDArray[np.float64]]]:
    """Return the features of frames by name.

    Returns
    -------
    list of (str, ndarray of shape (n,), float64)
        ``height`` and ``width`` in pixels, ``aspect`` (width over height); with a recipe its ``padding`` and ``crop``;
        0 or 1 for each ``file format`` and ``mode``; of decoded frames the ``ground``'s median red, green and blue, its
        spread, and its fraction of exact black.
    """
    sizes = [one.size_px for one in traits]
    columns: list[tuple[str, Sequence[float]]] = [
        ("height", [height for height, _ in sizes]),
        ("width", [width for _, width in sizes]),
        ("aspect", [width / height for height, width in sizes]),
    ]
    if recipe is not None:
        columns.append(("padding", [recipe.padding(*size) for size in sizes]))
        columns.append(("crop", [recipe.cut(*size) for size in sizes]))
    # The first of equally good columns is used: a format also leaves traces in the ground.
    for title, values in _kinds(traits):
        columns.extend((title, [float(value == each) for value in values]) for each in sorted(set(values)))
    grounds = [one.ground for one in traits if one.ground is not None]
    if len(grounds) == len(traits):
        columns.extend(("ground", [ground.rgb[channel] for ground in grounds]) for channel in range(3))
        columns.append(("spread of the ground", [ground.spread for ground in grounds]))
        columns.append(("exact black in the ground", [ground.black_share for ground in grounds]))
    return [(name, np.asarray(values, np.float64)) for name, values in columns]


def _groups(frames: Sequence[SeenFrame], names: Sequence[str]) -> tuple[NDArray[np.int64], str]:
    """Groups for the folds (subjects if every class has enough, else images), and their description."""
    subjects = {name: {frame.subject for frame in frames if frame.class_name == name} - {""} for name in names}
    by_image = np.arange(len(frames))
    if not any(subjects.values()):
        return by_image, "image, for no subject is known"
    numbers: dict[str, int] = {}
    groups = [
        len(frames) + number if not frame.subject else numbers.setdefault(frame.subject, len(numbers))
        for number, frame in enumerate(frames)
    ]
    for name in names:
        num_groups = len({group for group, frame in zip(groups, frames, strict=True) if frame.class_name == name})
        if num_groups < MIN_GROUPS:
            return by_image, f"image, for {name} has {num_groups} subject{'s' if num_groups > 1 else ''}"
    num_unknown = sum(not frame.subject for frame in frames)
    unknown = f", and {num_unknown:,} images of unknown ones" if num_unknown else ""
    return np.array(groups, np.int64), f"subject, of {len(numbers):,}{unknown}"


def _described(traits: Sequence[FrameTraits], features: Sequence[str], recipe: SizedRecipe | None) -> str:
    """Describe one class's frames by the deciding features."""
    said = []
    if SIZE_FEATURES.intersection(features):
        said.append(_size_text(traits, recipe))
    if _GROUND_FEATURES.intersection(features):
        said.append(_ground_text([one.ground for one in traits if one.ground is not None]))
    for title, values in _kinds(traits):
        if title in features:
            counts = Counter(values).most_common()
            said.append(listed(f"{count / len(values):.0%} {value}" for value, count in counts))
    return ", ".join(said)


def _kinds(traits: Sequence[FrameTraits]) -> list[tuple[str, list[str]]]:
    return [("file format", [one.file_format for one in traits]), ("mode", [one.mode for one in traits])]


def _size_text(traits: Sequence[FrameTraits], recipe: SizedRecipe | None) -> str:
    sizes = [one.size_px for one in traits]
    ((height, width), count), *others = Counter(sizes).most_common()
    text = f"{height}x{width} px"
    if others:
        heights, widths = zip(*sizes, strict=True)
        range_text = f"heights {min(heights)} to {max(heights)}, widths {min(widths)} to {max(widths)}"
        text = f"{count / len(sizes):.0%} {text} ({range_text})"
    return text if recipe is None else f"{text}{framing_text(sizes, recipe)}"


def framing_text(sizes: Sequence[tuple[int, int]], recipe: SizedRecipe) -> str:
    """Return text like ``, 100% padded (31% of the square)`` for frames of these heights and widths, or nothing."""
    said = ""
    for what, whole, fraction in (("padded", "square", recipe.padding), ("cropped", "frame", recipe.cut)):
        values = [fraction(*size) for size in sizes]
        touched = [value for value in values if value >= WORTH_SAYING]
        if touched:
            mean = sum(touched) / len(touched)
            said += f", {len(touched) / len(values):.0%} {what} ({mean:.0%} of the {whole})"
    return said


def _ground_text(grounds: Sequence[Ground]) -> str:
    red, green, blue = np.median([ground.rgb for ground in grounds], axis=0)
    spread, black = np.mean([(ground.spread, ground.black_share) for ground in grounds], axis=0)
    return f"ground {red:.0f}/{green:.0f}/{blue:.0f} (spread {spread:.0f}, {black:.0%} exact black)"
