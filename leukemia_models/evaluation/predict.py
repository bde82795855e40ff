"""A network and uint8 batches in, probabilities out, over one or several views of each image."""

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
from leukemia_models.devices.precision import autocast
from leukemia_models.evaluation.predictions import Predictions
from leukemia_models.evaluation.settings import D4, LOGITS, NO_TTA, NONE, Tta

_ROWS, _COLUMNS = 1, 2


def views(tta: Tta, images_BHWC: Tensor) -> Iterator[Tensor]:
    """Yield the views of a batch, one after the other, so that only one is in memory at a time.

    Parameters
    ----------
    tta : Tta
        Which views.
    images_BHWC : tensor (B,S,S,3), uint8
        Not modified; on any device, where the views are made too.

    Yields
    ------
    tensor (B,S,S,3)
        uint8; float32 in grey levels [0, 255] where a turn had to be interpolated. The first view is the image itself.

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
        yield from _d4_views(images_BHWC)
    else:
        yield from _turned_views(images_BHWC, tta.num_rotations)


def _d4_views(images_BHWC: Tensor) -> Iterator[Tensor]:
    """The four quarter turns, and those of the mirrored image."""
    for start_BHWC in (images_BHWC, images_BHWC.flip(_COLUMNS)):
        for quarter_turns in range(4):
            yield torch.rot90(start_BHWC, quarter_turns, (_ROWS, _COLUMNS))


def _turned_views(images_BHWC: Tensor, num_rotations: int) -> Iterator[Tensor]:
    for number in range(num_rotations):
        quarter_turns, rest = divmod(4 * number, num_rotations)
        if rest == 0:
            yield torch.rot90(images_BHWC, quarter_turns, (_ROWS, _COLUMNS))
        else:
            yield _turned(images_BHWC, math.tau * number / num_rotations)


def _turned(images_BHWC: Tensor, angle_rad: float) -> Tensor:
    """Images turned counter-clockwise, as ``rot90`` turns them; bilinear, with black around them."""
    cosine, sine = math.cos(angle_rad), math.sin(angle_rad)
    affine_23 = torch.tensor([[cosine, -sine, 0], [sine, cosine, 0]], dtype=torch.float32, device=images_BHWC.device)
    images_BCHW = images_BHWC.permute(0, 3, 1, 2).to(torch.float32)
    return warp(images_BCHW, affine_23.expand(len(images_BCHW), 2, 3)).permute(0, 2, 3, 1)


def average_views(logits_NVK: Tensor, average: str) -> Tensor:
    """Make one answer of those to the views.

    Parameters
    ----------
    logits_NVK : tensor (N,V,K), float64
        Of each image, view and class.
    average : str
        One of :data:`~leukemia_models.evaluation.settings.AVERAGES`.

    Returns
    -------
    tensor (N,K), float64
        Mean logits, or logarithms of the mean probabilities; the softmax of either is the answer. A row is not finite
        where the logits of one of its views are not.
    """
    num_views = logits_NVK.shape[1]
    if num_views == 1:
        return logits_NVK[:, 0]
    if average == LOGITS:
        return logits_NVK.mean(dim=1)
    log_means_NK = logits_NVK.log_softmax(dim=2).logsumexp(dim=1) - math.log(num_views)
    # A view whose logit is -inf has a probability of 0, which would hide among the others'.
    overflowed_N = ~logits_NVK.isfinite().flatten(1).all(dim=1)
    return log_means_NK.masked_fill(overflowed_N[:, None], math.nan)


_NOTHING = "nothing to predict: the split holds no images"
_NO_STEP = -1


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module of `model` in eval mode for the block, without gradients; then each back as it was."""
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
    amp: bool = False,
    channels_last: bool = True,
    tta: Tta = NO_TTA,
    ranks: Ranks = SINGLE,
) -> Predictions:
    """Predict every sample of `batches`.

    All ranks must call this, with their own rows of the same number of batches; the result is the same on each.

    Parameters
    ----------
    model : torch.nn.Module
        On `device`; normalised images in, logits out. Parameters, buffers and mode are left as they are.
    batches : iterable of Batch
        Each sample once, not augmented. Rows whose mask is False are left out.
    normalization, device, amp, channels_last, ranks
        As in training: the network's normalisation, where it runs, mixed precision, memory format, and processes.
    tta : Tta
        Which views of each image are predicted, one after the other, and how they are averaged.

    Returns
    -------
    Predictions
        Batch by batch, and within a batch in the order of the ranks.

    Raises
    ------
    RunError
        If there is no batch, or the network's output is non-finite.
    """
    normalizer = Normalizer(normalization, device, channels_last=channels_last)

    def logits_of(images_BHWC: Tensor) -> Tensor:
        with autocast(device, amp):
            shown = views(tta, to_device(images_BHWC, device))
            return torch.stack([cast(Tensor, model(normalizer(view_BHWC))) for view_BHWC in shown], dim=1)

    def predict_share() -> tuple[Tensor, Tensor]:
        with evaluating(model):
            logits_NVK, keys_NC = _predict_share(logits_of, batches)
        return average_views(logits_NVK, tta.average), keys_NC

    logits_NK, keys_NC = _in_order_of_all(*ranks.run_on_all(predict_share), ranks)
    if not len(keys_NC):
        raise RunError(_NOTHING)
    # In float64, so that the probabilities of a row sum to 1 and a certain answer keeps a finite loss.
    log_probabilities_NK = logits_NK.log_softmax(dim=1)
    _require_finite(log_probabilities_NK)
    _, labels_N, indices_N = keys_NC.T.contiguous()
    return Predictions(indices_N.numpy(), labels_N.numpy(), log_probabilities_NK.numpy())


def _predict_share(logits_of: Callable[[Tensor], Tensor], batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Return float64 logits (N,V,K) and int64 keys (N,3): step, label, index; without masked rows, on the CPU."""
    logits, labels, keys, masks = [], [], [], []
    for step, batch in enumerate(batches):
        # On the device until the end: fetching each batch's would make it wait.
        logits.append(logits_of(batch.images_BHWC))
        # Copies: a stream may fill the same buffers again for its next batch.
        labels.append(batch.labels_B.clone())
        keys.append(torch.stack([torch.full_like(batch.indices_B, step), batch.indices_B], dim=1))
        masks.append(batch.mask_B.clone())
    if not logits:
        raise RunError(_NOTHING)
    mask_N = torch.cat(masks)
    steps_N, indices_N = torch.cat(keys).unbind(dim=1)
    keys_NC = torch.stack([steps_N, torch.cat(labels).cpu(), indices_N], dim=1)
    return torch.cat(logits).cpu().double()[mask_N], keys_NC[mask_N]


def _in_order_of_all(logits_NK: Tensor, keys_NC: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Return the rows of all ranks, by step, and within a step by rank."""
    missing = int(ranks.all_gather_numbers(len(keys_NC)).max()) - len(keys_NC)
    logits_WNK = ranks.gather(functional.pad(logits_NK, (0, 0, 0, missing)))
    keys_WNC = ranks.gather(functional.pad(keys_NC, (0, 0, 0, missing), value=_NO_STEP))
    is_row_WN = keys_WNC[..., 0] != _NO_STEP
    logits_NK, keys_NC = logits_WNK[is_row_WN], keys_WNC[is_row_WN]
    order_N = keys_NC[:, 0].argsort(stable=True)
    return logits_NK[order_N], keys_NC[order_N]


def _require_finite(log_probabilities_NK: Tensor) -> None:
    bad = int((~log_probabilities_NK.isfinite().all(dim=1)).sum())
    if bad:
        raise RunError(
            f"the network's output is not a number for {bad} of {len(log_probabilities_NK)} images: its weights or "
            "BatchNorm statistics have overflowed; train again with a lower learning rate"
        )
