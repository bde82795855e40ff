"""Training frameworks take all samples of every epoch from a stream, counted inside their steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, islice

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from leukemia_data.caches.cache import Cache, open_cache
from leukemia_data.errors import UsageError
from leukemia_data.streams.batch import Batch
from leukemia_data.streams.dataset import CachedCells
from leukemia_data.streams.loader import BatchStream

from ..helpers import build, cache_dir, make_source

SIZE, NUM_TRAIN, NUM_VALID, BATCH = 16, 27, 13, 4
EPOCHS = 3
# Of the frameworks, not of this project.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Cache:
    root = tmp_path_factory.mktemp("frameworks")
    build(make_source(root / "source", NUM_TRAIN + NUM_VALID), root / "cache", sizes_px=(SIZE,))
    return open_cache(cache_dir(root / "cache", SIZE))


@pytest.fixture(params=[True, False], ids=["drop_last", "all"])
def training(cache, request) -> BatchStream:
    return BatchStream(cache, range(NUM_TRAIN), batch_size=BATCH, seed=3, drop_last=request.param)


@pytest.fixture
def validation(cache) -> BatchStream:
    return BatchStream(cache, range(NUM_TRAIN, NUM_TRAIN + NUM_VALID), batch_size=BATCH)


def indices(batches) -> list[int]:
    return [number for batch in batches for number in batch.indices_B.tolist()]


def whole_epochs(stream: BatchStream, count: int) -> list[list[int]]:
    return [indices(stream.epoch(epoch)) for epoch in range(count)]


VALIDATION = list(range(NUM_TRAIN, NUM_TRAIN + NUM_VALID))


class Linear(nn.Module):
    """A network that takes uint8 images (B, S, S, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(SIZE * SIZE * 3, 2)

    def forward(self, images_BHWC):
        return self.layer(images_BHWC.float().flatten(1) / 255)


def loss_of(network: nn.Module, batch: Batch) -> torch.Tensor:
    return functional.cross_entropy(network(batch.images_BHWC), batch.labels_B)


# --- plain loops ----------------------------------------------------------------------------------------------


def take_all(stream) -> list[Batch]:
    return list(stream)


def take_counted(stream) -> list[Batch]:
    return [batch for _, batch in zip(range(len(stream)), stream, strict=False)]


def take_islice(stream) -> list[Batch]:
    return list(islice(stream, len(stream)))


def take_next(stream) -> list[Batch]:
    batches = iter(stream)
    return [next(batches) for _ in range(len(stream))]


TAKERS = [take_all, take_counted, take_islice, take_next]


@pytest.mark.parametrize("take", TAKERS)
def test_every_epoch_is_whole_however_a_loop_counts(training, validation, take):
    expected = whole_epochs(training, EPOCHS)
    assert [indices(take(training)) for _ in range(EPOCHS)] == expected
    assert [indices(take(validation)) for _ in range(EPOCHS)] == [VALIDATION] * EPOCHS


def peek(stream) -> None:
    next(iter(stream))


def leave_by_break(stream) -> None:
    for _ in zip(range(2), stream, strict=False):
        pass


def leave_by_error(stream) -> None:
    try:
        for batch in stream:
            raise KeyError(len(batch.labels_B))
    except KeyError:
        pass


@pytest.mark.parametrize("leave", [peek, leave_by_break, leave_by_error])
@pytest.mark.parametrize("take", TAKERS)
def test_after_an_epoch_that_was_left_early_comes_the_next_whole_one(training, validation, leave, take):
    expected = whole_epochs(training, 3)
    leave(training)
    assert indices(take(training)) == expected[1]
    leave(validation)
    assert indices(take(validation)) == VALIDATION
    assert indices(take(training)) == expected[2]


def test_unused_iterators_and_epochs_by_number_skip_no_epoch(training):
    expected = whole_epochs(training, 2)
    for _ in range(3):
        iter(training)
    next(training.epoch(7))
    assert [indices(training), indices(training)] == expected


def test_two_iterators_at_once_give_an_epoch_each(training, validation):
    first, second = whole_epochs(training, 2)
    pairs = list(zip(training, training, strict=True))
    assert [indices(side) for side in zip(*pairs, strict=True)] == [first, second]
    pairs = list(zip(validation, validation, strict=True))
    assert [indices(side) for side in zip(*pairs, strict=True)] == [VALIDATION, VALIDATION]


@pytest.mark.parametrize("stop", [0, 1, 5, "end"])
@pytest.mark.parametrize("take", TAKERS)
def test_only_the_first_iterator_after_a_state_was_loaded_gives_the_rest(cache, training, stop, take):
    expected = whole_epochs(training, 3)
    peek(training)
    stop = len(training) if stop == "end" else stop
    batches = iter(training)
    taken = indices(next(batches) for _ in range(stop))
    again = BatchStream(cache, range(NUM_TRAIN), batch_size=BATCH, seed=3, drop_last=len(training) * BATCH < NUM_TRAIN)
    again.load_state_dict(training.state_dict())
    rest = indices(again)
    if stop == 0:
        # No batch of epoch 1 was returned: the state is still that of epoch 0.
        assert rest == expected[0][BATCH:]
    else:
        assert taken + rest == expected[1] or (stop == len(training) and rest == expected[2])
    following = expected[{0: 1, len(training): 0}.get(stop, 2)]
    if stop != len(training):
        assert indices(take(again)) == following


def test_set_epoch_decides_the_next_epoch_and_leaves_a_loaded_place_inside_it(cache, training):
    expected = whole_epochs(training, 6)
    training.set_epoch(4)
    assert [indices(training), indices(training)] == expected[4:]
    training.set_epoch(np.int64(1))
    peek(training)
    training.load_state_dict(training.state_dict())
    training.set_epoch(1)
    assert indices(training) == expected[1][BATCH:]
    for wrong in (-1, 1.0, True):
        with pytest.raises(UsageError, match="epoch must be"):
            training.set_epoch(wrong)


def test_state_of_an_evaluation_stream_counts_once(validation):
    batches = iter(validation)
    next(batches)
    validation.load_state_dict(validation.state_dict())
    assert indices(validation) == VALIDATION[BATCH:]
    assert indices(validation) == VALIDATION


# --- Lightning ------------------------------------------------------------------------------------------------


@pytest.fixture
def lightning():
    return pytest.importorskip("lightning", reason="lightning is not installed: the extra `dev` has it")


@pytest.fixture
def make_module(lightning):
    """A LightningModule that records the samples of every step, by epoch, validation and test."""

    class Counting(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = Linear()
            self.trained, self.validated, self.tested = defaultdict(list), [], []

        def on_train_epoch_start(self):
            # Lightning loads the stream's state only where a checkpoint was saved inside an epoch.
            self.trainer.train_dataloader.set_epoch(self.current_epoch)

        def on_validation_epoch_start(self):
            self.validated.append([])

        def on_test_epoch_start(self):
            self.tested.append([])

        def training_step(self, batch, number):
            self.trained[self.current_epoch].extend(batch.indices_B.tolist())
            return loss_of(self.network, batch)

        def validation_step(self, batch, number):
            self.validated[-1].extend(batch.indices_B.tolist())

        def test_step(self, batch, number):
            self.tested[-1].extend(batch.indices_B.tolist())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    return Counting


@pytest.fixture
def make_trainer(lightning, tmp_path):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return lambda **changes: lightning.Trainer(
        default_root_dir=tmp_path, **{**quiet, "enable_checkpointing": False, "max_epochs": EPOCHS, **changes}
    )


def test_lightning_fits_whole_epochs_and_validates_all_each_time(make_module, make_trainer, training, validation):
    expected, module = whole_epochs(training, EPOCHS), make_module()
    trainer = make_trainer(num_sanity_val_steps=2)
    trainer.fit(module, training, validation)
    assert module.trained == dict(enumerate(expected))
    assert trainer.global_step == EPOCHS * len(training)
    assert module.validated == [VALIDATION[: 2 * BATCH], *[VALIDATION] * EPOCHS]


def test_lightning_validates_and_tests_all_samples_again_and_again(make_module, make_trainer, validation):
    module, trainer = make_module(), make_trainer()
    for _ in range(3):
        trainer.validate(module, validation, verbose=False)
        trainer.test(module, validation, verbose=False)
    assert module.validated == module.tested == [VALIDATION] * 3


@pytest.mark.parametrize("every_n_steps", [2, None], ids=["inside", "at the end"])
def test_lightning_resumes_from_its_checkpoint(
    lightning, make_module, make_trainer, cache, validation, tmp_path, every_n_steps
):
    def stream() -> BatchStream:
        return BatchStream(cache, range(NUM_TRAIN), batch_size=BATCH, seed=3)

    expected = whole_epochs(stream(), EPOCHS)
    steps = len(expected[0]) // BATCH + 1
    saving = lightning.pytorch.callbacks.ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=every_n_steps, save_top_k=-1, save_on_train_epoch_end=None
    )
    make_trainer(enable_checkpointing=True, callbacks=[saving]).fit(make_module(), stream(), validation)
    # Step 10 is inside the second epoch of seven steps, step 7 the end of the first one.
    path = tmp_path / f"step={10 if every_n_steps else steps}.ckpt"
    module = make_module()
    make_trainer().fit(module, stream(), validation, ckpt_path=path)
    assert module.trained == {1: expected[1][3 * BATCH :] if every_n_steps else expected[1], 2: expected[2]}


# --- Accelerate, Transformers, fastai -------------------------------------------------------------------------

EXTRA = "is not installed: the extra `frameworks` has it"


def test_accelerate_trains_and_evaluates_on_whole_epochs(training, validation):
    accelerate = pytest.importorskip("accelerate", reason=f"accelerate {EXTRA}")
    expected = whole_epochs(training, EPOCHS)
    accelerator = accelerate.Accelerator(cpu=True)
    network = Linear()
    network, optimizer, prepared, judged = accelerator.prepare(
        network, torch.optim.SGD(network.parameters(), lr=0.01), training, validation
    )
    for epoch in range(EPOCHS):
        seen = []
        for batch in prepared:
            seen += batch.indices_B.tolist()
            accelerator.backward(loss_of(network, batch))
            optimizer.step()
            optimizer.zero_grad()
        assert seen == expected[epoch]
        assert indices(judged) == VALIDATION


class Dictionaries:
    """A stream's batches as the keyword arguments of a Transformers model."""

    def __init__(self, stream: BatchStream) -> None:
        self._stream = stream

    def __len__(self) -> int:
        return len(self._stream)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for batch in self._stream:
            yield {"images": batch.images_BHWC, "labels": batch.labels_B, "indices": batch.indices_B}


def test_transformers_trainer_trains_and_evaluates_on_whole_epochs(training, validation, tmp_path):
    transformers = pytest.importorskip("transformers", reason=f"transformers {EXTRA}")
    pytest.importorskip("accelerate", reason=f"accelerate {EXTRA}")
    expected, seen = whole_epochs(training, EPOCHS), {True: [], False: []}

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = Linear()

        def forward(self, images, labels, indices):
            seen[self.training].extend(indices.tolist())
            logits = self.network(images)
            return {"loss": functional.cross_entropy(logits, labels), "logits": logits}

    class Trainer(transformers.Trainer):
        def get_train_dataloader(self):
            return Dictionaries(training)

        def get_eval_dataloader(self, eval_dataset=None):
            return Dictionaries(validation)

    settings = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=EPOCHS,
        eval_strategy="epoch",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model=Network(), args=settings, eval_dataset=Dictionaries(validation))
    trainer.train()
    assert trainer.state.global_step == EPOCHS * len(training)
    assert seen == {True: [*chain.from_iterable(expected)], False: VALIDATION * EPOCHS}
    for count in (1, 2):
        trainer.evaluate()
        assert len(seen[False]) == NUM_VALID * (EPOCHS + count)


class Pairs:
    """A stream's batches as fastai takes them: inputs and targets."""

    def __init__(self, stream: BatchStream, seen: list[list[int]]) -> None:
        self._stream, self._seen = stream, seen

    def __len__(self) -> int:
        return len(self._stream)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        self._seen.append([])
        for batch in self._stream:
            self._seen[-1] += batch.indices_B.tolist()
            yield batch.images_BHWC, batch.labels_B


def test_fastai_trains_and_validates_on_whole_epochs(training, validation):
    learner = pytest.importorskip("fastai.learner", reason=f"fastai {EXTRA}")
    core = pytest.importorskip("fastai.data.core", reason=f"fastai {EXTRA}")
    expected, trained, validated = whole_epochs(training, EPOCHS), [], []
    loaders = core.DataLoaders(Pairs(training, trained), Pairs(validation, validated))
    learning = learner.Learner(loaders, Linear(), loss_func=functional.cross_entropy, cbs=[])
    learning.fit(EPOCHS)
    learning.validate()
    assert trained == expected
    assert validated == [VALIDATION] * (EPOCHS + 1)


def test_a_data_loader_shuffles_anew_for_each_iterator_too(cache):
    """The plain way of PyTorch, for comparison: a fresh shuffle for each iterator, also after a peek."""
    cells = CachedCells(cache, range(NUM_TRAIN))
    loader = DataLoader(cells, batch_size=BATCH, shuffle=True, generator=torch.Generator().manual_seed(0))
    next(iter(loader))
    orders = [[record_id for _, _, ids in loader for record_id in ids] for _ in range(2)]
    assert orders[0] != orders[1]
    assert all(sorted(order) == sorted(cells.record_ids) for order in orders)
