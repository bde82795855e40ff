"""Prediction of batches, over one or several views of each image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from leukemia_data.augmenting.geometry import warp
from leukemia_data.errors import RunError
from leukemia_data.streams.batch import to_device
from leukemia_models.devices.distributed import SINGLE, Ranks
from leukemia_models.devices.normalization import Batch, Normalization, Normalizer
from leukemia_models.devices.precision import FP32, autocast
from leukemia_models.evaluation.predictions import Predictions
from leukemia_models.evaluation.settings import D4, LOGITS, NO_TTA, NONE, Tta

_ROWS, _COLUMNS = 1, 2


def views(tta: Tta, images_BHWC: Tensor) -> Iterator[Tensor]:
    """Yield the views of a batch, the images themselves first; only one is in memory at a time.

    Parameters
    ----------
    tta : Tta
    images_BHWC : tensor (B,S,S,3), uint8
        On any device; not modified.

    Yields
    ------
    tensor (B,S,S,3)
        uint8, or float32 in [0, 255] for interpolated rotations.

    Raises
    ------
    ValueError
        If the images are not square.
    """
    if tta.kind == NONE:
        yield images_BHWC
        return
    if images_BHWC.shape[_ROWS] != images_BHWC.shape[_COLUMNS]:
        raise ValueError(f"views need square images, got {tuple(images_BHWC.shape)}")
    if tta.kind == D4:
        for start_BHWC in (images_BHWC, images_BHWC.flip(_COLUMNS)):
            for quarter_turns in range(4):
                yield torch.rot90(start_BHWC, quarter_turns, (_ROWS, _COLUMNS))
    else:
        yield from _turned_views(images_BHWC, tta.num_rotations)


def _turned_views(images_BHWC: Tensor, num_rotations: int) -> Iterator[Tensor]:
    for number in range(num_rotations):
        quarter_turns, rest = divmod(4 * number, num_rotations)
        if rest == 0:
            yield torch.rot90(images_BHWC, quarter_turns, (_ROWS, _COLUMNS))
        else:
            yield _turned(images_BHWC, math.tau * number / num_rotations)


def _turned(images_BHWC: Tensor, angle_rad: float) -> Tensor:
    """Return images rotated counter-clockwise, as by ``rot90``, with bilinear interpolation and a black border."""
    cosine, sine = math.cos(angle_rad), math.sin(angle_rad)
    affine_23 = torch.tensor([[cosine, -sine, 0], [sine, cosine, 0]], dtype=torch.float32, device=images_BHWC.device)
    images_BCHW = images_BHWC.permute(0, 3, 1, 2).to(torch.float32)
    return warp(images_BCHW, affine_23.expand(len(images_BCHW), 2, 3)).permute(0, 2, 3, 1)


def average_views(logits_NVK: Tensor, average: str) -> Tensor:
    """Average the predictions of views.

    Parameters
    ----------
    logits_NVK : tensor (N,V,K), float64
        Of each image, view and class.
    average : str
        One of :data:`~leukemia_models.evaluation.settings.AVERAGES`.

    Returns
    -------
    tensor (N,K), float64
        Mean logits, or logarithms of mean probabilities. Rows with non-finite logits are non-finite.
    """
    num_views = logits_NVK.shape[1]
    if num_views == 1:
        return logits_NVK[:, 0]
    if average == LOGITS:
        return logits_NVK.mean(dim=1)
    log_means_NK = logits_NVK.log_softmax(dim=2).logsumexp(dim=1) - math.log(num_views)
    # A logit of -inf would be hidden as a probability of 0.
    overflowed_N = ~logits_NVK.isfinite().flatten(1).all(dim=1)
    return log_means_NK.masked_fill(overflowed_N[:, None], math.nan)


_NOTHING = "nothing to predict: the split holds no images"


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run the block with `model` in eval mode and without gradients, and then restore the mode of each module."""
    was_training = [module.training for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in zip(model.modules(), was_training, strict=True):
            module.training = training


def predict_probabilities(
    model: nn.Module,
    batches: Iterable[Batch],
    normalization: Normalization,
    device: torch.device,
    *,
    precision: str = FP32,
    channels_last: bool = True,
    tta: Tta = NO_TTA,
    ranks: Ranks = SINGLE,
) -> Predictions:
    """Predict every sample of `batches`.

    All ranks must call this, with their own rows of the same number of batches; the result is the same on each.

    Parameters
    ----------
    model : torch.nn.Module
        On `device`; maps normalised images to logits. It is left unchanged.
    batches : iterable of Batch
        Each sample once, not augmented. Masked rows are skipped.
    normalization, device, channels_last, tta, ranks
        Normalisation and device of the network, memory format, test-time augmentation, and processes.
    precision : str
        A decided one, see :func:`~leukemia_models.devices.precision.decide_precision`.

    Returns
    -------
    Predictions
        In the order of the batches, and of the ranks within a batch.

    Raises
    ------
    RunError
        If there is no batch, or an output is non-finite.
    """
    normalizer = Normalizer(normalization, device, channels_last=channels_last)

    def logits_of(images_BHWC: Tensor) -> Tensor:
        with autocast(device, precision):
            shown = views(tta, to_device(images_BHWC, device))
            return torch.stack([cast(Tensor, model(normalizer(view_BHWC))) for view_BHWC in shown], dim=1)

    def predict_own() -> tuple[Tensor, Tensor]:
        with evaluating(model):
            logits_NVK, keys_NC = _predict_own(logits_of, batches)
        return average_views(logits_NVK, tta.average), keys_NC

    logits_NK, keys_NC = _gathered(*ranks.run_on_all(predict_own), ranks)
    if not len(keys_NC):
        raise RunError(_NOTHING)
    # In float64, so that probabilities sum to 1, and confident predictions have a finite loss.
    log_probabilities_NK = logits_NK.log_softmax(dim=1)
    bad = int((~log_probabilities_NK.isfinite().all(dim=1)).sum())
    if bad:
        raise RunError(
            f"the network's output is not a number for {bad} of {len(log_probabilities_NK)} images: its weights or "
            "BatchNorm statistics have overflowed; train again with a lower learning rate"
        )
    _, labels_N, indices_N = keys_NC.T.contiguous()
    return Predictions(indices_N.numpy(), labels_N.numpy(), log_probabilities_NK.numpy())


def _predict_own(logits_of: Callable[[Tensor], Tensor], batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Return this rank's float64 logits (N,V,K) and int64 keys (N,3): step, label, index; unmasked, on the CPU."""
    logits, labels, keys, masks = [], [], [], []
    for step, batch in enumerate(batches):
        # On the device until the end, so that no batch waits for it.
        logits.append(logits_of(batch.images_BHWC))
        # Copies, since a stream may reuse the buffers for its next batch.
        labels.append(batch.labels_B.clone())
        keys.append(torch.stack([torch.full_like(batch.indices_B, step), batch.indices_B], dim=1))
        masks.append(batch.mask_B.clone())
    if not logits:
        raise RunError(_NOTHING)
    mask_N = torch.cat(masks)
    steps_N, indices_N = torch.cat(keys).unbind(dim=1)
    keys_NC = torch.stack([steps_N, torch.cat(labels).cpu(), indices_N], dim=1)
    return torch.cat(logits).cpu().double()[mask_N], keys_NC[mask_N]


def _gathered(logits_NK: Tensor, keys_NC: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Return the rows of all ranks, by step, and within a step by rank."""
    missing = int(ranks.all_gather_numbers(len(keys_NC)).max()) - len(keys_NC)
    logits_WNK = ranks.gather(functional.pad(logits_NK, (0, 0, 0, missing)))
    keys_WNC = ranks.gather(functional.pad(keys_NC, (0, 0, 0, missing), value=-1))
    is_row_WN = keys_WNC[..., 0] != -1
    logits_NK, keys_NC = logits_WNK[is_row_WN], keys_WNC[is_row_WN]
    order_N = keys_NC[:, 0].argsort(stable=True)
    return logits_NK[order_N], keys_NC[order_N]
