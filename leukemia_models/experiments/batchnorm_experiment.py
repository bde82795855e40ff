"""Why a network that does well in training mode can fail in eval mode: data, training, figure."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from torch import Tensor, nn

from leukemia_data.augmenting.augment import Augmenter
from leukemia_data.augmenting.augmentation import Augmentation
from leukemia_data.errors import UsageError
from leukemia_data.operations.resizing import resize_area
from leukemia_data.records.arguments import as_labels
from leukemia_data.sources.sample_cells import SampleCell, generate_cell, plan_sample
from leukemia_data.streams.batch import Batch as Batch_memory_source
from leukemia_data.streams.batch import BatchPlan
from leukemia_models.devices.normalization import GREY_LEVELS, Batch, BatchSource, Normalization, Normalizer
from leukemia_models.evaluation.predict import D4, LOGITS, Tta, average_views, predict_probabilities, views
from leukemia_models.evaluation.predictions import Predictions
from leukemia_models.reports.style import BLUE, GREEN, ORANGE, VERMILION, stamped_figure
from leukemia_models.training.batchnorm_report import BatchNormScores
from leukemia_models.training.batchnorm_statistics import applied, reestimate_batchnorm
from leukemia_models.training.history import EpochRecord
from leukemia_models.training.run_state import TrainSettings, TrainState
from leukemia_models.training.train import Observer, fit

WAYS = ("eval_at_once", "train_mode", "eval_after_train_mode", "eval_reestimated")


@dataclass(frozen=True, kw_only=True)
class EpochScores:
    """The same weights on the same validation images, judged four ways.

    Parameters
    ----------
    epoch : int
        Counted from 1.
    train_accuracy : float
        In training mode, on augmented images, while the weights moved.
    eval_at_once : BatchNormScores
        Eval mode with the statistics that training left.
    train_mode : BatchNormScores
        Training mode with eight views of each image, as the report validated.
    eval_after_train_mode : BatchNormScores
        Eval mode with the statistics that those passes left, as the report tested.
    eval_reestimated : BatchNormScores
        Eval mode with statistics from clean training images.
    """

    epoch: int
    train_accuracy: float
    eval_at_once: BatchNormScores
    train_mode: BatchNormScores
    eval_after_train_mode: BatchNormScores
    eval_reestimated: BatchNormScores

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return asdict(self)


def run_experiment(
    model: nn.Module,
    train_source: BatchSource,
    clean_source: BatchSource,
    valid_source: BatchSource,
    settings: TrainSettings,
    normalization: Normalization,
    augmentation: Augmentation,
    device: torch.device,
    on_step: Callable[[int], None] | None = None,
) -> list[EpochScores]:
    """Train `model` in place and judge it four ways after every epoch.

    Parameters
    ----------
    model : torch.nn.Module
        Normalised images in, two logits out.
    train_source, clean_source, valid_source : BatchSource
        Training images for learning; the same or others, in shuffled batches, for the re-estimation; validation images
        in shuffled batches, for in training mode the company in a batch matters.
    settings : TrainSettings
        Length, optimizer, seed.
    normalization : Normalization
        Of the training images.
    augmentation : Augmentation
        Of the training images; drawn from the settings' seed.
    device : torch.device
        Where the network runs.
    on_step : callable, optional
        Called with 1 after each training step.

    Returns
    -------
    list of EpochScores
    """
    judge = _Evaluation(model, clean_source, valid_source, normalization, device, settings.channels_last)
    watcher = _Watcher(judge, on_step)
    augmenter = Augmenter(
        augmentation, seed=settings.seed, mean=normalization.mean, std=normalization.std, device=device
    )
    fit(model, train_source, None, settings, normalization, augmenter, device, watcher)
    return watcher.epochs


class _Watcher(Observer):
    """Judges the network after every epoch."""

    def __init__(self, judge: _Evaluation, on_step: Callable[[int], None] | None) -> None:
        self._evaluate, self._on_step = judge, on_step
        self.epochs: list[EpochScores] = []

    def on_step(self, epoch: int, step: int, loss: float, num_samples: int) -> None:
        if self._on_step is not None:
            self._on_step(1)

    def on_epoch_end(self, record: EpochRecord, state: TrainState, is_best: bool) -> None:
        self.epochs.append(
            EpochScores(epoch=record.epoch, train_accuracy=record.train_accuracy, **self._evaluate.four_ways())
        )


@dataclass(frozen=True)
class _Evaluation:
    """Judges a network without changing it."""

    model: nn.Module
    clean_source: BatchSource
    valid_source: BatchSource
    normalization: Normalization
    device: torch.device
    channels_last: bool

    def four_ways(self) -> dict[str, BatchNormScores]:
        spoilt = copy.deepcopy(self.model)
        found = [
            self._in_eval_mode(self.model),
            predict_in_train_mode(spoilt, self._validation(), self.normalization, self.device),
            self._in_eval_mode(spoilt),
            self._reestimated(),
        ]
        return {way: BatchNormScores.of(predictions) for way, predictions in zip(WAYS, found, strict=True)}

    def _validation(self) -> Iterable[Batch]:
        return self.valid_source.epoch(1)

    def _in_eval_mode(self, model: nn.Module) -> Predictions:
        return predict_probabilities(
            model, self._validation(), self.normalization, self.device, channels_last=self.channels_last
        )

    def _reestimated(self) -> Predictions:
        statistics = reestimate_batchnorm(
            self.model, self.clean_source.epoch(1), self.normalization, self.device, channels_last=self.channels_last
        )
        with applied(statistics, self.model):
            return self._in_eval_mode(self.model)


@torch.no_grad()
def predict_in_train_mode(
    model: nn.Module, batches: Iterable[Batch], normalization: Normalization, device: torch.device
) -> Predictions:
    """Do what the second report's validation did, to see what it does. Nothing else may use this.

    The network stays in training mode, and so each of the eight views of a batch is normalised by its own statistics
    and written into the running ones.

    Parameters
    ----------
    model : torch.nn.Module
        A copy that may be spoilt: its BatchNorm buffers change.
    batches : iterable of Batch
        Labelled; of two or more images each, as training mode needs them.
    normalization, device
        As for :func:`~leukemia_models.evaluation.predict.predict_probabilities`.
    """
    model.train()
    normalizer = Normalizer(normalization, device)
    logits, labels, indices = [], [], []
    for batch in batches:
        shown = views(Tta(D4), batch.images_BHWC.to(device))
        answers: Sequence[Tensor] = [model(normalizer(view_BHWC)) for view_BHWC in shown]
        logits.append(torch.stack(list(answers), dim=1).cpu().double())
        labels.append(batch.labels_B.cpu())
        indices.append(batch.indices_B)
    log_probabilities_NK = average_views(torch.cat(logits), LOGITS).log_softmax(dim=1)
    return Predictions(
        torch.cat(indices).numpy().astype(np.int64), torch.cat(labels).numpy(), log_probabilities_NK.numpy()
    )


CROP_PX = 270
"""The first report's centre crop, which holds every cell."""
VALID_FOLD = 2


@dataclass(frozen=True)
class CellImages:
    """Images with their classes.

    Parameters
    ----------
    images_NHWC : uint8 array (N,S,S,3)
        RGB.
    labels_N : int64 array (N,)
        0 hem, 1 all.
    """

    images_NHWC: NDArray[np.uint8]
    labels_N: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels_N)

    def normalization(self) -> Normalization:
        """Return mean and standard deviation of all pixels, per channel."""
        pixels = self.images_NHWC.reshape(-1, 3) / GREY_LEVELS
        return Normalization.of(pixels.mean(axis=0), pixels.std(axis=0))


def plan_cells(
    num_subjects: int, train_cells_per_subject: int, valid_cells_per_subject: int
) -> tuple[list[SampleCell], list[SampleCell]]:
    """List the cells for training and for validation: a third of the subjects is for validation.

    Raises
    ------
    UsageError
        If there are fewer than 2 subjects, or no cells. From 9 subjects on, both parts hold both classes.
    """
    train = [cell for cell in plan_sample(num_subjects, train_cells_per_subject) if cell.fold != VALID_FOLD]
    valid = [cell for cell in plan_sample(num_subjects, valid_cells_per_subject) if cell.fold == VALID_FOLD]
    return train, valid


def draw_cells(
    cells: list[SampleCell],
    *,
    seed: int,
    size_px: int,
    num_threads: int = 2,
    progress: Callable[[int], None] | None = None,
) -> CellImages:
    """Generate cells, crop them to the centre and shrink them.

    Parameters
    ----------
    cells : list of SampleCell
        Which ones, in the order of the result.
    seed : int
        Chooses the sample; not negative.
    size_px : int
        Side of the images.
    num_threads : int
        Images generated at a time; changes no pixel.
    progress : callable, optional
        Called with 1 after each image, in the calling thread.
    """

    def draw(cell: SampleCell) -> NDArray[np.uint8]:
        frame_HWC = generate_cell(seed, cell.subject_number, cell.cell_index, cell.label)
        margin_px = (len(frame_HWC) - CROP_PX) // 2
        inner = slice(margin_px, margin_px + CROP_PX)
        return resize_area(np.ascontiguousarray(frame_HWC[inner, inner]), size_px)

    images = []
    with ThreadPoolExecutor(num_threads) as pool:
        for image_HWC in pool.map(draw, cells):
            images.append(image_HWC)
            if progress is not None:
                progress(1)
    return CellImages(np.stack(images), np.array([cell.label for cell in cells], np.int64))


class MemorySource:
    """Batches of arrays, each with memory of its own.

    Parameters
    ----------
    images_NHWC : uint8 array (N,S,S,3)
        RGB. Sample number i is image i.
    labels_N : int64 array (N,)
        Classes.
    batch_size : int
        At least 1; the last batch of an epoch may be smaller.
    seed : int, optional
        Shuffles each epoch anew; None keeps the order of the arrays.
    drop_last : bool
        Leave out a last batch that is not full.

    Raises
    ------
    UsageError
        If an argument is of another kind, or there are not as many labels as images.
    """

    def __init__(
        self,
        images_NHWC: NDArray[np.uint8],
        labels_N: NDArray[np.int64],
        *,
        batch_size: int,
        seed: int | None = None,
        drop_last: bool = False,
    ) -> None:
        images_NHWC, labels_N = np.asarray(images_NHWC), as_labels(labels_N, "labels_N")
        if images_NHWC.dtype != np.uint8 or images_NHWC.ndim != 4 or labels_N.ndim != 1:
            raise UsageError(
                f"images_NHWC must be uint8 (N,S,S,3) and labels_N (N,), got {images_NHWC.dtype} {images_NHWC.shape} "
                f"and {labels_N.shape}"
            )
        if len(images_NHWC) != len(labels_N):
            raise UsageError(f"{len(images_NHWC)} images but {len(labels_N)} labels")
        indices_N = np.arange(len(labels_N), dtype=np.int64)
        self._images_NHWC, self._labels_N = images_NHWC, labels_N
        self._plan = BatchPlan(indices_N, batch_size=batch_size, seed=seed, drop_last=drop_last)

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return len(self._plan)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch_memory_source]:
        """Return the batches of one epoch without its first `first_step` ones, on the CPU."""
        for indices_B, mask_B in self._plan.batches(epoch, first_step):
            yield Batch_memory_source(
                torch.from_numpy(self._images_NHWC[indices_B]),
                torch.from_numpy(self._labels_N[indices_B]),
                torch.from_numpy(indices_B.copy()),
                torch.from_numpy(mask_B),
            )


WAY_TITLES: Mapping[str, str] = MappingProxyType(
    {
        "eval_at_once": "(i) eval mode at once",
        "train_mode": "(ii) training mode, 8 views",
        "eval_after_train_mode": "(iii) eval mode after (ii)",
        "eval_reestimated": "(iv) eval mode, re-estimated",
    }
)
_STYLES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "eval_at_once": {"color": VERMILION, "linestyle": "-", "marker": "o"},
        "train_mode": {"color": BLUE, "linestyle": "--", "marker": "s"},
        "eval_after_train_mode": {"color": ORANGE, "linestyle": ":", "marker": "^"},
        "eval_reestimated": {"color": GREEN, "linestyle": "-.", "marker": "D"},
    }
)


def draw_batchnorm(epochs: Sequence[EpochScores], *, share_of_labels: float, title: str, stamp: str) -> Figure:
    """Draw validation accuracy, the share of class 1 among the answers and the cross-entropy, per epoch.

    Parameters
    ----------
    epochs : sequence of EpochScores
        At least one.
    share_of_labels : float
        Share of class 1 in the validation labels: what the answers' share should be near, and what always answering
        class 1 scores.
    title : str
        What was trained.
    stamp : str
        Kind of split, printed under the panels.
    """
    figure = stamped_figure((13.0, 4.4), title, stamp)
    accuracy_axes, share_axes, loss_axes = figure.subplots(1, 3)
    _draw_panel(accuracy_axes, epochs, "accuracy", "validation accuracy")
    _draw_panel(share_axes, epochs, "share_positive", "answers that are class 1 (ALL)")
    _draw_panel(loss_axes, epochs, "loss", "validation cross-entropy (log scale)")
    for axes, label in ((accuracy_axes, "always answering ALL"), (share_axes, "share of the labels")):
        line = axes.axhline(share_of_labels, color="0.45", linewidth=1, label=label)
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(handles=[line], loc="lower right", fontsize=9)
    loss_axes.set_yscale("log")
    loss_axes.legend(loc="upper right", fontsize=9, framealpha=0.9)
    return figure


def _draw_panel(axes: Axes, epochs: Sequence[EpochScores], quantity: str, label: str) -> None:
    numbers = [scores.epoch for scores in epochs]
    for way in WAYS:
        values = [getattr(getattr(scores, way), quantity) for scores in epochs]
        axes.plot(numbers, values, label=WAY_TITLES[way], markersize=6, markerfacecolor="none", **_STYLES[way])
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.set_xlim(min(numbers) - 0.3, max(numbers) + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(visible=True, color="0.9")
