"""Inference: a network and uint8 batches in, one row of probabilities per sample out.

Always in eval mode and never with a change to a buffer: a BatchNorm that saw validation images has learnt
from them. The network is handed back in the mode it came in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from leukemia_data.errors import RunError
from leukemia_models.normalization import Normalization, Normalizer
from leukemia_models.precision import autocast
from leukemia_models.predictions import Predictions


class Batch(Protocol):
    """Samples that travel together. `images_BHWC` may lie on any device."""

    @property
    def images_BHWC(self) -> Tensor:
        """Grey levels, uint8 (B,S,S,3), RGB."""
        ...

    @property
    def labels_B(self) -> Tensor:
        """Classes, int64 (B,); -1 where unknown."""
        ...

    @property
    def indices_B(self) -> Tensor:
        """Numbers of the samples in their cache, int64 (B,)."""
        ...


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
) -> Predictions:
    """Run `model` over `batches` and return what it thinks of every sample.

    Parameters
    ----------
    model : torch.nn.Module
        On `device`; normalised images in, logits out. Parameters, buffers and mode are left as they are.
    batches : iterable of Batch
        Each sample once, not augmented.
    normalization : Normalization
        What the network was trained with.
    device : torch.device
        Where it runs.
    amp : bool
        Mixed precision, on CUDA only.
    channels_last : bool
        Memory format of the network's weights.

    Raises
    ------
    RunError
        If no batch came, or the network's output is not finite.
    """
    normalizer = Normalizer(normalization, device, channels_last=channels_last)
    logits, labels, indices = [], [], []
    with evaluating(model):
        for batch in batches:
            with autocast(device, amp):
                logits_BK = model(normalizer(batch.images_BHWC.to(device, non_blocking=True)))
            logits.append(logits_BK)
            # Copies: a stream may fill the same buffers again for its next batch.
            labels.append(batch.labels_B.clone())
            indices.append(batch.indices_B.clone())
        if not logits:
            raise RunError("nothing to predict: the split holds no images")
        # In float64, so that the probabilities of a row sum to 1 and a certain answer keeps a finite loss.
        log_probabilities = torch.cat(logits).cpu().double().log_softmax(dim=1)
        _require_finite(log_probabilities)
        return Predictions(
            indices_N=torch.cat(indices).cpu().numpy(),
            labels_N=torch.cat(labels).cpu().numpy(),
            log_probabilities_NK=log_probabilities.numpy(),
        )


def _require_finite(log_probabilities_NK: Tensor) -> None:
    bad = int((~log_probabilities_NK.isfinite().all(dim=1)).sum())
    if bad:
        raise RunError(
            f"the network's output is not a number for {bad} of {len(log_probabilities_NK)} images: its weights or "
            "BatchNorm statistics have overflowed; train again with a lower learning rate"
        )
