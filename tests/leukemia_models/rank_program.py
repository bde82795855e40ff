"""What one of several processes does in the tests of ranks.

``python -m tests.leukemia_models.rank_program FOLDER END``: they rendezvous in the folder, and each writes its results
to ``rank<n>.pt``. Finally the last of them vanishes (END is ``vanishing``). With ``failing`` they do nothing before it
fails inside a step.
"""

from __future__ import annotations

import copy
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from leukemia_data.errors import CacheError, RunError
from leukemia_models.devices.distributed import Ranks, joined_ranks, rank_device
from leukemia_models.evaluation.predict import predict_probabilities
from leukemia_models.training.history import EarlyStopping
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.run_state import TrainSettings, TrainState
from leukemia_models.training.sync_batchnorm import SynchronizedBatchNorm
from leukemia_models.training.train import Observer, fit

from .fakes import (
    CPU,
    NORMALIZATION,
    FakeBatch,
    FakeSource,
    copied_state,
    fake_batch,
    flipped_by_epoch_and_sample,
    share_of,
    tiny_network,
)

# An odd batch, a batch of one that is left out, and one of three.
TRAIN_SIZES = (8, 7, 1, 3)
VALID_SIZES = (6, 6, 3)
SETTINGS = TrainSettings(epochs=3, optimizer=OptimizerSettings(lr=0.05), seed=5, sync_batchnorm=True)
EVERYTHING = replace(
    SETTINGS,
    optimizer=OptimizerSettings(lr=0.05, nesterov=True, decay_norm_and_bias=False),
    clip_norm=0.8,  # of gradients from 0.6 to 1.1
    label_smoothing=0.1,
    class_weights=(1.0, 3.0),
    ema_decay=0.8,
    early_stopping=EarlyStopping(patience_epochs=1, min_delta=0.5, metric="loss"),
)
APART = replace(SETTINGS, sync_batchnorm=False)
WEIGHTED = replace(APART, class_weights=(1.0, 3.0), clip_norm=0.8)
# Of the last batch the last of four micro-batches has no row.
UNEVEN_SIZES = (8, 7, 3)
STATE_AFTER = (2, 2)
# Rows of each rank, shape of a row, and how the layer differs from the default one.
LAYER_CASES: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ((4, 4), (5, 6, 7), {}),
    ((5, 2), (5, 6, 7), {"momentum": None}),
    ((3, 0), (5, 6, 7), {"eps": 0.1}),
    ((1, 1), (5, 1, 1), {}),
    ((4, 3), (5,), {"affine": False}),
    ((4, 3), (5, 2, 2), {"track_running_stats": False}),
)


def batches(sizes: tuple[int, ...], first_seed: int) -> list[FakeBatch]:
    return [fake_batch(size, first_seed + number, size_px=16) for number, size in enumerate(sizes)]


def shares(sizes: tuple[int, ...], first_seed: int, ranks: Ranks, *, padded: bool = True) -> FakeSource:
    whole = batches(sizes, first_seed)
    return FakeSource([share_of(batch, ranks.rank, ranks.world_size, padded=padded) for batch in whole])


def several_shares(ranks: Ranks, micro_batches_per_rank: int, sizes: tuple[int, ...] = TRAIN_SIZES) -> SeveralShares:
    """Each batch as so many batches for each rank, filled up with rows that do not count."""
    first, num_micro_batches = ranks.rank * micro_batches_per_rank, ranks.world_size * micro_batches_per_rank
    return SeveralShares(
        [
            [share_of(batch, first + part, num_micro_batches, padded=True) for part in range(micro_batches_per_rank)]
            for batch in batches(sizes, 0)
        ]
    )


class SeveralShares(FakeSource):
    """For each step a list of batches, in an order that depends on the epoch alone."""

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[FakeBatch]:
        return (share for step in super().epoch(epoch, first_step) for share in step)


class Saver(Observer):
    """Requests the state of one step, on the last rank only; keeps its calls."""

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        self.model, self.wanting = model, ranks.rank == ranks.world_size - 1
        self.steps: list[tuple[int, int, float, int]] = []
        self.saved: tuple[TrainState, dict[str, Tensor]] | None = None

    def on_step(self, epoch: int, step: int, loss: float, num_samples: int) -> None:
        self.steps.append((epoch, step, loss, num_samples))

    def wants_state(self, epoch: int, step: int) -> bool:
        return self.wanting and (epoch, step) == STATE_AFTER

    def on_state(self, state: TrainState) -> None:
        self.saved = copy.deepcopy(state), copied_state(self.model)


def trained(
    ranks: Ranks,
    *,
    padded: bool = True,
    start: TrainState | None = None,
    settings: TrainSettings = SETTINGS,
    **changes: Any,
) -> dict[str, Any]:
    """Train a fresh network, or one resumed from a state."""
    model = tiny_network(seed=3)
    if changes.get("weights"):
        model.load_state_dict(changes.pop("weights"))
    observer = changes.pop("observer", None) or Saver(model, ranks)
    arguments = {
        "train_source": shares(TRAIN_SIZES, 0, ranks, padded=padded),
        "valid_source": shares(VALID_SIZES, 10, ranks),
        "prepare": flipped_by_epoch_and_sample,
        **changes,
    }
    layers = [type(module) for module in model.modules()]
    history = fit(
        model,
        settings=settings,
        normalization=NORMALIZATION,
        device=CPU,
        observer=observer,
        start=start,
        ranks=ranks,
        **arguments,
    )
    assert [type(module) for module in model.modules()] == layers
    assert model.training == model[1].training
    records = [record.to_dict() for record in history.records]
    return {
        "records": records,
        "weights": copied_state(model),
        **{k: vars(observer).get(k) for k in ("steps", "saved")},
    }


def trained_by_shares(ranks: Ranks, micro_batches_per_rank: int, settings: TrainSettings) -> dict[str, Any]:
    source = several_shares(ranks, micro_batches_per_rank)
    return trained(ranks, settings=replace(settings, accumulate=micro_batches_per_rank), train_source=source)


@contextmanager
def counted_exchanges() -> Iterator[Counter[str]]:
    """Count torch's collective operations in the block, but for those that DDP starts in C++."""
    names = ("all_gather", "all_gather_into_tensor", "all_reduce", "broadcast", "barrier", "gather", "reduce")
    functions = {name: getattr(dist, name) for name in names}
    found: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., Any]:
        def count(*given: Any, **options: Any) -> Any:
            found[name] += 1
            return functions[name](*given, **options)

        return count

    try:
        for name in names:
            setattr(dist, name, counting(name))
        yield found
    finally:
        for name, function in functions.items():
            setattr(dist, name, function)


class ExchangesPerStep(Observer):
    """Keeps how many collective operations there were from the end of a step to the end of the next one."""

    def __init__(self, found: Counter[str]) -> None:
        self.found, self.before = found, Counter[str]()
        self.between: list[Counter[str]] = []

    def on_step(self, epoch: int, step: int, loss: float, num_samples: int) -> None:
        if step > 1:
            self.between.append(self.found - self.before)
        self.before = Counter(self.found)


def exchanges_per_step(ranks: Ranks, micro_batches_per_rank: int, settings: TrainSettings) -> list[Counter[str]]:
    source = several_shares(ranks, micro_batches_per_rank, UNEVEN_SIZES)
    settings = replace(settings, accumulate=micro_batches_per_rank)
    with counted_exchanges() as found:
        observer = ExchangesPerStep(found)
        trained(ranks, settings=settings, train_source=source, observer=observer)
    return observer.between


def resumed(ranks: Ranks, whole: dict[str, Any]) -> dict[str, Any]:
    state, weights = whole["saved"]
    return trained(ranks, start=state, weights=weights)


def predicted(ranks: Ranks) -> dict[str, Any]:
    source = shares(VALID_SIZES, 10, ranks)
    found = predict_probabilities(tiny_network(seed=3), source.epoch(0), NORMALIZATION, CPU, ranks=ranks)
    return vars(found)


def layer_inputs(shares_W: tuple[int, ...], row: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Features far from 0, and the gradients that come back."""
    generator = torch.Generator().manual_seed(1)
    features, gradients = torch.randn(2, sum(shares_W), *row, generator=generator)
    return 20 + 3 * features, gradients


def normalized_share(ranks: Ranks, case: int) -> dict[str, Tensor]:
    """Two training steps of a layer and one evaluation of this rank's rows."""
    rows_W, row, options = LAYER_CASES[case]
    layer = (nn.BatchNorm1d if len(row) == 1 else nn.BatchNorm2d)(row[0], **options)
    synchronized = SynchronizedBatchNorm(layer, ranks)
    features, gradients = (tensor.split(rows_W)[ranks.rank] for tensor in layer_inputs(rows_W, row))
    leaf = features.clone().requires_grad_()
    synchronized(features)
    output = synchronized(leaf)
    output.backward(gradients)
    found = {"output": output.detach(), "grad": leaf.grad, **copied_state(layer)}
    found |= {f"grad.{name}": parameter.grad for name, parameter in layer.named_parameters()}
    judged = synchronized.eval()(features) if layer.track_running_stats and ranks.rank == 0 else torch.empty(0)
    return {**found, "judged": judged.detach()}


class Broken(FakeSource):
    """Fails before the third batch of every epoch."""

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[FakeBatch]:
        yield from self.batches[:2]
        raise CacheError("shard 7 is gone")


class FullDisk(Saver):
    def on_state(self, state: TrainState) -> None:
        raise OSError(28, "No space left on device")


def spoilt(images_BHWC: Tensor, epoch: int, indices_B: Tensor, occurrences_B: Tensor) -> Tensor:
    return flipped_by_epoch_and_sample(images_BHWC, epoch, indices_B) * (torch.nan if epoch == 2 else 1.0)


def unprepared(images_BHWC: Tensor, epoch: int, indices_B: Tensor, occurrences_B: Tensor) -> Tensor:
    raise ValueError("no such augmentation")


def unlabelled(ranks: Ranks) -> FakeSource:
    source = shares(TRAIN_SIZES, 0, ranks)
    source.batches[1].labels_B[0] = -1
    return source


FAILURES: dict[str, Callable[[Ranks], dict[str, Any]]] = {
    "label": lambda ranks: {"train_source": unlabelled(ranks)},
    "loss": lambda ranks: {"prepare": spoilt},
    "augmentation": lambda ranks: {"prepare": unprepared},
    "stream": lambda ranks: {"train_source": Broken(shares(TRAIN_SIZES, 0, ranks).batches)},
    "validation": lambda ranks: {"valid_source": Broken(shares(VALID_SIZES, 10, ranks).batches)},
    "saving": lambda ranks: {"observer": FullDisk(tiny_network(), ranks)},
}


def failed(ranks: Ranks, name: str, settings: TrainSettings = APART) -> tuple[str, str, int]:
    """Kind and message of the error when something fails on rank 1 alone, and the number of steps before."""
    saver = Saver(tiny_network(), ranks)
    changes = {"observer": saver, **(FAILURES[name](ranks) if ranks.rank == 1 else {})}
    try:
        trained(ranks, settings=settings, **changes)
    except (RunError, CacheError, ValueError, OSError) as error:
        return type(error).__name__, str(error), len(saver.steps)
    return "", "no error", len(saver.steps)


def work(ranks: Ranks) -> dict[str, Any]:
    whole = trained(ranks)
    return {
        "trained": whole,
        "unpadded": trained(ranks, padded=False),
        "everything": trained(ranks, settings=EVERYTHING),
        "resumed": resumed(ranks, whole),
        "apart": trained(ranks, settings=APART),
        "shares apart": trained_by_shares(ranks, 2, replace(EVERYTHING, sync_batchnorm=False)),
        "shares together": trained_by_shares(ranks, 2, SETTINGS),
        "predicted": predicted(ranks),
        "layers": [normalized_share(ranks, case) for case in range(len(LAYER_CASES))],
        "failed": {name: failed(ranks, name) for name in FAILURES},
        "failed together": failed(ranks, "loss", SETTINGS),
        "exchanges": {
            (number, settings.class_weights): exchanges_per_step(ranks, number, settings)
            for number in (1, 2)
            for settings in (APART, WEIGHTED)
        },
        "told": ranks.broadcast_text("grün\udc80" if ranks.is_first else "red, and longer"),
        "handed out": ranks.broadcast_bytes(lambda: bytes(range(256)) if ranks.is_first else 1 / 0),
        "says first": [ranks.broadcast_flag(ranks.is_first), ranks.broadcast_flag(not ranks.is_first)],
        "after failures": ranks.sum(torch.tensor([ranks.rank + 1])).tolist(),
    }


class Vanishing(Observer):
    """Ends the process of the last rank in the middle of a step, without a message."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def wants_state(self, epoch: int, step: int) -> bool:
        if self.ranks.rank == self.ranks.world_size - 1 and step == 2:
            os._exit(9)
        return False


def fail_inside_a_step(ranks: Ranks) -> None:
    """The second micro-batch of the last rank cannot be prepared, when the others wait for its gradients."""
    calls = Counter[int]()

    def prepare(images_BHWC: Tensor, epoch: int, indices_B: Tensor, occurrences_B: Tensor) -> Tensor:
        calls[epoch] += 1
        if ranks.rank == ranks.world_size - 1 and calls[epoch] == 2:
            raise ValueError("no such augmentation")
        return flipped_by_epoch_and_sample(images_BHWC, epoch, indices_B)

    source = several_shares(ranks, 2, UNEVEN_SIZES)
    trained(ranks, settings=replace(APART, accumulate=2), train_source=source, prepare=prepare)


def main(folder: Path, end: str) -> None:
    torch.set_num_threads(1)
    device = rank_device(CPU, os.environ)
    try:
        with joined_ranks(os.environ, device, init_method=(folder / "meeting").as_uri()) as ranks:
            if end == "failing":
                fail_inside_a_step(ranks)
            torch.save(work(ranks), folder / f"rank{ranks.rank}.pt")
            trained(ranks, observer=Vanishing(ranks))
    except (RunError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
