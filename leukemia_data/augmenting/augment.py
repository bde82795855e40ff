"""Random augmentation of whole batches on the network's device, and the table of its parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leukemia_data.augmenting import appearance
from leukemia_data.augmenting.augmentation import Augmentation
from leukemia_data.augmenting.geometry import draw_affine, move_pixels, warp
from leukemia_data.augmenting.operation import Draws, may_happen
from leukemia_data.errors import UsageError
from leukemia_data.lazy_imports import cv2
from leukemia_data.records.arguments import as_flag, as_numbers, as_whole
from leukemia_data.streams.batch import BufferPool, as_device, to_device


class Columns:
    """Columns of the parameter table.

    Attributes
    ----------
    AFFINE
        A 2x3 matrix, row by row, from output to input coordinates, both (x, y) from the centre in half sides.
    COLOR, GREY
        Of :func:`~leukemia_data.augmenting.appearance.draw_color`, row by row.
    NOISE_LEVEL, NOISE_START
        Signed standard deviation of the noise in grey levels, 0 for none; offset in the noise bank.
    CUTOUT
        Top row and left column of the square, in pixels; outside the image for none.
    BLUR
        First weight of the 1-D blur kernel; 0 ... 0 1 0 ... 0 for none. Columns of custom operations follow.
    """

    AFFINE = slice(0, 6)
    COLOR = slice(6, 15)
    GREY = slice(15, 18)
    NOISE_LEVEL = 18
    NOISE_START = 19
    CUTOUT = slice(20, 22)
    BLUR = 22


def blur_columns(augmentation: Augmentation) -> slice:
    """Return the columns of the blur kernel's weights."""
    return slice(Columns.BLUR, Columns.BLUR + (0 if augmentation.blur is None else augmentation.blur.kernel_px))


def custom_columns(augmentation: Augmentation) -> list[slice]:
    """Return the columns of each custom operation: whether it is applied, and its draws."""
    ends = accumulate([blur_columns(augmentation).stop, *(1 + change.num_draws for change in augmentation.custom)])
    return [slice(start, end) for start, end in pairwise(ends)]


def draw_parameters(
    augmentation: Augmentation,
    samples_B: NDArray[np.int64],
    seed: int,
    epoch: int,
    size_px: int,
    occurrences_B: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Draw the parameters of samples, given by their indices in the cache (B,), for images of `size_px`.

    Parameters
    ----------
    occurrences_B : ndarray of shape (B,), int64, optional
        As for :class:`~leukemia_data.augmenting.operation.Draws`.

    Returns
    -------
    ndarray of shape (B, 22 + kernel_px of the blur + 1 + num_draws of each custom operation), float32
        As :class:`Columns` describes it.
    """
    draws = Draws(samples_B, seed, epoch, occurrences_B)
    table_BP = np.zeros((len(samples_B), blur_columns(augmentation).stop), np.float32)
    table_BP[:, Columns.AFFINE] = draw_affine(
        augmentation.moving, augmentation.rotate, augmentation.scale, augmentation.translate, draws
    ).reshape(-1, 6)
    if augmentation.color is not None:
        matrix_B33, grey_B3 = appearance.draw_color(augmentation.color, draws)
        table_BP[:, Columns.COLOR], table_BP[:, Columns.GREY] = matrix_B33.reshape(-1, 9), grey_B3
    if augmentation.blur is not None:
        table_BP[:, blur_columns(augmentation)] = appearance.draw_blur_weights(augmentation.blur, draws)
    if augmentation.noise is not None:
        table_BP[:, Columns.NOISE_LEVEL], table_BP[:, Columns.NOISE_START] = appearance.draw_noise(
            augmentation.noise, draws, size_px
        )
    if augmentation.cutout is not None:
        table_BP[:, Columns.CUTOUT] = appearance.draw_cutout(augmentation.cutout, draws, size_px)
    custom = [draws.of_custom(operation) for operation in augmentation.custom]
    return np.concatenate([table_BP, *custom], axis=1, dtype=np.float32)


_GREY_LEVELS = 255.0
# Values per part of a batch on the CPU: its copies fit into the CPU's caches, and are below the size from which
# allocators request every block from the operating system.
_PART_VALUES = 620_000
# glibc keeps freed blocks up to the largest size it has seen freed, at most 32 MiB.
_HEAP_BYTES = 31 << 20
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class Augmenter:
    """Augments and normalises batches.

    Parameters
    ----------
    augmentation
        The operations and their parameters.
    seed
        Non-negative; every draw is a function of seed, epoch, sample index and occurrence.
    mean, std
        Of the channels R, G, B on the scale [0, 1], as in the cache's statistics; finite, std above 0.
    device
        Device of the batches.
    channels_last
        Memory format of the results, that of the network; their values do not depend on it.

    Raises
    ------
    UsageError
        If an argument is of another kind or out of range.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        *,
        seed: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str,
        channels_last: bool = True,
    ) -> None:
        self.augmentation = augmentation
        self._seed = as_whole(seed, "seed", at_least=0)
        self._device = as_device(device)
        self._channels_last = as_flag(channels_last, "channels_last")
        mean, std = _channels(mean, "mean"), _channels(std, "std")
        if min(std) <= 0:
            raise UsageError(f"std must be above 0 in every channel, got {std}")
        self._black = [-m / s for m, s in zip(mean, std, strict=True)]
        self._white = [(1 - m) / s for m, s in zip(mean, std, strict=True)]
        self._offset_C = torch.tensor(self._black, dtype=torch.float32, device=self._device)
        self._scale_C = torch.tensor([1 / (_GREY_LEVELS * s) for s in std], dtype=torch.float32, device=self._device)
        self._grey_C = torch.tensor(appearance.GREY_WEIGHTS, dtype=torch.float32, device=self._device)
        self._pool = BufferPool(max_idle=2)
        self._noise_bank: Tensor | None = None
        columns_of_custom = zip(augmentation.custom, custom_columns(augmentation), strict=True)
        self._custom = [(operation, columns) for operation, columns in columns_of_custom if may_happen(operation)]
        changes = (augmentation.color, augmentation.blur, augmentation.noise, augmentation.cutout)
        # Moving 8-bit pixels costs a tenth of a nearest-neighbour warp; devices have kernels for the warp alone.
        self._moves_first = self._device.type == "cpu" and augmentation.moves and not augmentation.warps
        warps = augmentation.warps or (augmentation.moves and not self._moves_first)
        self._only_normalizes = not warps and not self._custom and not any(map(may_happen, changes))
        if self._device.type == "cpu":
            torch.empty(_HEAP_BYTES, dtype=torch.uint8)

    @torch.no_grad()
    def __call__(
        self, images_BHWC: Tensor, epoch: int, indices_B: Tensor, occurrences_B: Tensor | None = None
    ) -> Tensor:
        """Augment and normalise one batch.

        Parameters
        ----------
        images_BHWC : Tensor of shape (B, S, S, 3), uint8
            On the augmenter's device; not changed.
        epoch
            Non-negative.
        indices_B : Tensor of shape (B,), int64
            Indices of the samples in the cache, on the CPU.
        occurrences_B : Tensor of shape (B,), int64, optional
            A batch's `occurrences_B`, on the CPU: whole numbers from 0 that differ between the draws of a sample in an
            epoch, so that each is augmented differently. None for 0.

        Returns
        -------
        Tensor of shape (B, 3, S, S), float32
            Normalised, in the augmenter's memory format. On the CPU its memory is reused once it is no longer
            referenced.
        """
        size_px = self._check(images_BHWC, indices_B, occurrences_B)
        table_BP = self._parameters(as_whole(epoch, "epoch", at_least=0), indices_B, occurrences_B, size_px)
        self._prepare_noise(size_px)
        out_BCHW = self._output(len(images_BHWC), size_px)
        for part in self._parts(len(images_BHWC), size_px):
            self._augment(images_BHWC[part], table_BP[part], out_BCHW[part])
        return out_BCHW

    def _augment(self, images_BHWC: Tensor, table_BP: Tensor, out_BCHW: Tensor) -> None:
        """Augment a part of a batch into its memory format."""
        if self._moves_first:
            moves_B22 = table_BP[:, Columns.AFFINE].reshape(-1, 2, 3)[:, :, :2]
            images_BHWC = torch.from_numpy(move_pixels(images_BHWC.numpy(), moves_B22.numpy()))
        if self._only_normalizes or not self._channels_last:
            self.apply(images_BHWC, table_BP, out_BCHW)
            return
        planes_BCHW = torch.empty_like(out_BCHW, memory_format=torch.contiguous_format)
        self.apply(images_BHWC, table_BP, planes_BCHW)
        interleave(planes_BCHW, out_BCHW)

    def apply(self, images_BHWC: Tensor, table_BP: Tensor, out_BCHW: Tensor) -> None:
        """Augment images by a table of parameters, and write them, normalised, into `out_BCHW`.

        All device work is here; may be compiled by ``torch.compile``. On the CPU whole pixels have been moved before.
        """
        if self._only_normalizes and self._channels_last:
            normalize_pixels(images_BHWC, self._scale_C, self._offset_C, out_BCHW.permute(0, 2, 3, 1))
            return
        images_BCHW = self._geometry(images_BHWC, table_BP)
        where_B1HW = self._where_added(images_BCHW)
        if may_happen(self.augmentation.blur):
            images_BCHW = appearance.blur(images_BCHW, table_BP[:, blur_columns(self.augmentation)])
        added_B3 = None
        if self._changes_contrast:
            greys_B = appearance.mean_grey(images_BCHW, self._grey_C)
            added_B3 = table_BP[:, Columns.GREY] * greys_B[:, None] * self._scale_C
        if may_happen(self.augmentation.cutout):
            images_BCHW, where_B1HW = self._cut(self.augmentation.cutout, images_BCHW, where_B1HW, table_BP)
        if may_happen(self.augmentation.color):
            matrix_B33 = table_BP[:, Columns.COLOR].reshape(-1, 3, 3) * self._scale_C[:, None]
            appearance.recolor(images_BCHW, matrix_B33, added_B3, where_B1HW, self._offset_C, out_BCHW)
        else:
            torch.addcmul(self._offset_C[:, None, None], images_BCHW, self._scale_C[:, None, None], out=out_BCHW)
        if self._noise_bank is not None:
            self._add_noise(self._noise_bank, out_BCHW, where_B1HW, table_BP)
        if may_happen(self.augmentation.color) or may_happen(self.augmentation.noise):
            clamp_channels_(out_BCHW, self._black, self._white)
        if self._custom:
            self._apply_custom(out_BCHW, table_BP)

    def _apply_custom(self, out_BCHW: Tensor, table_BP: Tensor) -> None:
        """Apply custom operations, which work on grey levels, to the normalised result."""
        scale_C11, offset_C11 = self._scale_C[:, None, None], self._offset_C[:, None, None]
        images_BCHW = ((out_BCHW - offset_C11) / scale_C11).clamp(0, _GREY_LEVELS)
        for operation, columns in self._custom:
            happens_B, draws_BK = table_BP[:, columns.start], table_BP[:, columns.start + 1 : columns.stop]
            changed_BCHW = operation.apply(images_BCHW, draws_BK).clamp(0, _GREY_LEVELS)
            images_BCHW = torch.where(happens_B[:, None, None, None] > 0, changed_BCHW, images_BCHW)
        torch.addcmul(offset_C11, images_BCHW, scale_C11, out=out_BCHW)

    def _geometry(self, images_BHWC: Tensor, table_BP: Tensor) -> Tensor:
        """Grey levels as new contiguous floats (B, 3, S, S), moved or warped."""
        images_BCHW = images_BHWC.permute(0, 3, 1, 2)
        if self._moves_first or not (self.augmentation.moves or self.augmentation.warps):
            return images_BCHW.to(torch.float32, memory_format=torch.contiguous_format)
        # The conversion that keeps the byte order is the fastest; the warp makes planes.
        images_BCHW = images_BCHW.to(torch.float32, memory_format=torch.channels_last)
        mode = "bilinear" if self.augmentation.warps else "nearest"
        return warp(images_BCHW, table_BP[:, Columns.AFFINE].reshape(-1, 2, 3), mode)

    def _where_added(self, images_BCHW: Tensor) -> Tensor | None:
        """1 where values may be added, (B, 1, S, S); None for everywhere."""
        adds = self._changes_contrast or may_happen(self.augmentation.noise)
        if not adds or not self.augmentation.keep_black:
            return None
        return foreground(images_BCHW, self.augmentation.black_level)

    def _cut(
        self, cutout: appearance.Cutout, images_BCHW: Tensor, where_B1HW: Tensor | None, table_BP: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Make squares black, and exclude them from additions."""
        size_px = images_BCHW.shape[-1]
        kept_B1HW = appearance.outside_squares(table_BP[:, Columns.CUTOUT], cutout.side_px(size_px), size_px)
        where_B1HW = kept_B1HW if where_B1HW is None else where_B1HW * kept_B1HW
        return images_BCHW.mul_(kept_B1HW), where_B1HW

    def _add_noise(self, bank: Tensor, out_BCHW: Tensor, where_B1HW: Tensor | None, table_BP: Tensor) -> None:
        noise_BCHW = appearance.noise_windows(bank, table_BP[:, Columns.NOISE_START], out_BCHW.shape[-1])
        if where_B1HW is not None:
            noise_BCHW.mul_(where_B1HW)
        levels_B3 = table_BP[:, Columns.NOISE_LEVEL, None] * self._scale_C
        out_BCHW.addcmul_(noise_BCHW, levels_B3[:, :, None, None])

    @property
    def _changes_contrast(self) -> bool:
        color = self.augmentation.color
        return may_happen(color) and color.contrast != (1.0, 1.0)

    def _parameters(self, epoch: int, indices_B: Tensor, occurrences_B: Tensor | None, size_px: int) -> Tensor:
        """The batch's table of parameters on the device."""
        occurrences = None if occurrences_B is None else occurrences_B.numpy()
        table_BP = torch.from_numpy(
            draw_parameters(self.augmentation, indices_B.numpy(), self._seed, epoch, size_px, occurrences)
        )
        if self._device.type == "cuda":
            table_BP = table_BP.pin_memory()
        return to_device(table_BP, self._device)

    def _prepare_noise(self, size_px: int) -> None:
        """Create the noise bank for images of this side, once."""
        is_ready = self._noise_bank is not None and len(self._noise_bank) == appearance.num_noise_values(size_px)
        if may_happen(self.augmentation.noise) and not is_ready:
            self._noise_bank = torch.from_numpy(appearance.make_noise_bank(self._seed, size_px)).to(self._device)

    def _output(self, batch: int, size_px: int) -> Tensor:
        """Uninitialised memory for a result, named (B, 3, S, S)."""
        shape = (batch, size_px, size_px, 3) if self._channels_last else (batch, 3, size_px, size_px)
        if self._device.type == "cpu":
            out = self._pool.take(shape, torch.float32)
        else:
            out = torch.empty(shape, dtype=torch.float32, device=self._device)
        return out.permute(0, 3, 1, 2) if self._channels_last else out

    def _parts(self, batch: int, size_px: int) -> Iterator[slice]:
        """Slices of the batch: a few samples each on the CPU, the whole batch elsewhere."""
        # Normalisation alone makes no further copies.
        num_values = 2 * _PART_VALUES if self._only_normalizes else _PART_VALUES
        length = batch if self._device.type != "cpu" else max(1, num_values // (3 * size_px**2))
        return (slice(start, start + length) for start in range(0, batch, max(1, length)))

    def _check(self, images_BHWC: Tensor, indices_B: Tensor, occurrences_B: Tensor | None) -> int:
        """Return the images' side; raises UsageError unless they are a batch of square images."""
        if images_BHWC.ndim != 4:
            raise UsageError(f"images_BHWC must be of shape (B, S, S, 3), got {tuple(images_BHWC.shape)}")
        batch, height_px, width_px, channels = images_BHWC.shape
        is_images = height_px == width_px and channels == 3 and images_BHWC.dtype == torch.uint8
        if not is_images or indices_B.shape != (batch,) or indices_B.dtype not in _WHOLE:
            raise UsageError(
                f"expected uint8 images (B, S, S, 3) and B whole sample indices, got {images_BHWC.dtype} "
                f"{tuple(images_BHWC.shape)} and {indices_B.dtype} {tuple(indices_B.shape)}"
            )
        if occurrences_B is not None and (occurrences_B.shape != (batch,) or occurrences_B.dtype not in _WHOLE):
            raise UsageError(
                f"expected B whole occurrences, got {occurrences_B.dtype} {tuple(occurrences_B.shape)} for {batch}"
            )
        kernel = self.augmentation.blur
        if may_happen(kernel) and kernel.kernel_px // 2 >= height_px:
            raise UsageError(f"blur: kernel_px {kernel.kernel_px} is too wide for images of {height_px} px")
        return height_px


def _channels(values: Sequence[float], name: str) -> list[float]:
    numbers = as_numbers(values, name)
    if numbers.shape != (3,) or not all(map(math.isfinite, numbers)):
        raise UsageError(f"{name} must be three finite numbers (R, G, B), got {values!r:.60}")
    return [float(number) for number in numbers]


def foreground(images_BCHW: Tensor, black_level: float) -> Tensor:
    """Return 1 where a pixel's brightest channel, rounded, is above `black_level`, else 0: (B, 1, S, S), same dtype."""
    red, green, blue = images_BCHW.unbind(1)
    brightest = torch.maximum(torch.maximum(red, green), blue)
    return (brightest >= black_level + 0.5).to(images_BCHW.dtype).unsqueeze(1)


def normalize_pixels(images_BHWC: Tensor, scale_C: Tensor, offset_C: Tensor, out_BHWC: Tensor) -> None:
    """Write ``pixel * scale + offset`` into `out_BHWC`, float; the images may be integers."""
    batch, height_px, width_px, channels = images_BHWC.shape
    # Whole pixel rows as the inner axis: hundreds of values per vector loop, instead of 3.
    rows = out_BHWC.view(batch * height_px, width_px * channels)
    rows.copy_(images_BHWC.reshape(batch * height_px, width_px * channels))
    torch.addcmul(offset_C.repeat(width_px), rows, scale_C.repeat(width_px), out=rows)


def interleave(planes_BCHW: Tensor, out_BCHW: Tensor) -> None:
    """Copy contiguous float images into ``channels_last`` memory."""
    if planes_BCHW.device.type != "cpu":
        out_BCHW.copy_(planes_BCHW)
        return
    # torch's copy takes more than twice as long.
    for planes, out in zip(planes_BCHW.numpy(), out_BCHW.permute(0, 2, 3, 1).numpy(), strict=True):
        cv2.merge(tuple(planes), dst=out)


def clamp_channels_(images_BCHW: Tensor, low_C: Sequence[float], high_C: Sequence[float]) -> None:
    """Clamp each channel to its own limits, in place."""
    for channel, (low, high) in enumerate(zip(low_C, high_C, strict=True)):
        images_BCHW[:, channel].clamp_(low, high)
