"""Plain PyTorch loops: the reports' way, torchvision and timm on cached pixels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from typing import Any

import torch
import torchvision
from stream.on_the_fly import preprocess, read_image, use_one_thread
from stream.peer import shuffled_loader
from stream.torchvision_samples import report_a_transform
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.transforms import v2

from leukemia_data.caches.cache import open_cache
from leukemia_data.streams.dataset import CachedCells
from leukemia_models.devices.precision import AUTO, FP32, autocast, decide_precision
from train.peer import Epoch, Setting, Steps, TrainPeer

NUM_WARM_STEPS = 2
Loader = DataLoader[Any]


class CachedImages(Dataset[tuple[Tensor, int]]):
    """Samples of our cache with a transform."""

    def __init__(self, cells: CachedCells, transform: v2.Transform) -> None:
        self._cells, self._transform = cells, transform

    def __len__(self) -> int:
        return len(self._cells)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        sample = self._cells[position]
        return self._transform(sample.image_CHW.contiguous()), sample.label


class LabelledFiles(Dataset[tuple[Tensor, int]]):
    """Original files, preprocessed anew each time, with a transform."""

    def __init__(self, setting: Setting, transform: v2.Transform) -> None:
        self._setting, self._transform = setting, transform

    def __len__(self) -> int:
        return len(self._setting.paths)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        image = preprocess(read_image(self._setting.paths[number]), self._setting.size_px)
        image_CHW = torch.from_numpy(image).permute(2, 0, 1).contiguous()
        return self._transform(image_CHW), int(self._setting.labels_N[number])


def normalize(setting: Setting) -> v2.Transform:
    """Return the transform of validation images."""
    return v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(setting.mean, setting.std)])


def flip_and_normalize(setting: Setting) -> v2.Transform:
    """Return the transform of training images that does what our default augmentation mostly does."""
    return v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), normalize(setting)])


def cached_loaders(setting: Setting) -> tuple[Loader, Loader]:
    """Return DataLoaders of training and validation images from our cache."""
    cache = open_cache(setting.cache_dir)
    training = CachedImages(CachedCells(cache, setting.train_N), flip_and_normalize(setting))
    validation = CachedImages(CachedCells(cache, setting.valid_N), normalize(setting))
    return (
        shuffled_loader(training, setting.batch_size, setting.num_workers, drop_last=True),
        DataLoader(validation, setting.batch_size, num_workers=setting.num_workers, persistent_workers=True),
    )


class TorchPeer(TrainPeer):
    """A loop over DataLoaders as in PyTorch's tutorials; subclasses choose network, data, optimizer."""

    memory_format = torch.contiguous_format
    num_epochs = 100
    precision = FP32

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._loaders = self.loaders()
        self._batches: Iterator[Any] = iter(())

    def loaders(self) -> tuple[Loader, Loader]:
        """Return the loaders of training and validation images."""
        return cached_loaders(self.setting)

    def network(self) -> nn.Module:
        """Return the network, untrained."""
        return torchvision.models.resnet18(num_classes=2)

    def optimizer(self, network: nn.Module) -> Optimizer:
        """Return the first report's optimizer."""
        return torch.optim.SGD(network.parameters(), lr=0.005, momentum=0.9, weight_decay=1e-4)

    def loss(self, logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        """Return the mean loss."""
        return functional.cross_entropy(logits_BK, labels_B)

    def before_epoch(self, optimizer: Optimizer, epoch: int) -> None:
        """Set the learning rate of an epoch, counted from 0."""

    def steps(self, num_steps: int) -> Steps:
        """Go on through the loader, whatever epoch it is in."""
        network = self.network().to(memory_format=self.memory_format).train()
        optimizer = self.optimizer(network)
        self._batches = cycle(self._loaders[0])
        self._run(network, optimizer, islice(self._batches, NUM_WARM_STEPS))
        return self._run(network, optimizer, islice(self._batches, num_steps))

    def train(self, seed: int, report: Callable[[Epoch], None]) -> None:
        """Train and validate until the caller has seen enough."""
        started_s = time.perf_counter()
        torch.manual_seed(seed)
        network = self.network().to(memory_format=self.memory_format)
        optimizer = self.optimizer(network)
        for epoch in range(self.num_epochs):
            network.train()
            self.before_epoch(optimizer, epoch)
            self._run(network, optimizer, iter(self._loaders[0]))
            accuracy = self._accuracy(network)
            report(Epoch(epoch + 1, time.perf_counter() - started_s, accuracy))

    def _run(self, network: nn.Module, optimizer: Optimizer, batches: Iterator[Any]) -> Steps:
        num_images, wait_s, started_s = 0, 0.0, time.perf_counter()
        while True:
            asked_s = time.perf_counter()
            batch = next(batches, None)
            wait_s += time.perf_counter() - asked_s
            if batch is None:
                return Steps(num_images, time.perf_counter() - started_s, wait_s)
            images_BCHW, labels_B = batch
            optimizer.zero_grad()
            with autocast(torch.device("cpu"), self.precision):
                logits_BK = network(images_BCHW.to(memory_format=self.memory_format))
            self.loss(logits_BK.float(), labels_B).backward()
            optimizer.step()
            num_images += len(labels_B)

    @torch.inference_mode()
    def _accuracy(self, network: nn.Module) -> float:
        network.eval()
        num_right = 0
        for images_BCHW, labels_B in self._loaders[1]:
            logits_BK = network(images_BCHW.to(memory_format=self.memory_format))
            num_right += int((logits_BK.argmax(dim=1) == labels_B).sum())
        return num_right / len(self.setting.valid_N)


class ReportsPeer(TorchPeer):
    """The first report: files decoded and preprocessed for every batch, its augmentation, SGD at a constant rate."""

    def loaders(self) -> tuple[Loader, Loader]:
        """Return loaders whose workers do the preprocessing."""
        setting = self.setting
        training = Subset(LabelledFiles(setting, report_a_transform(setting)), setting.train_N.tolist())
        validation = Subset(LabelledFiles(setting, normalize(setting)), setting.valid_N.tolist())
        workers: dict[str, Any] = {"worker_init_fn": use_one_thread}
        return (
            shuffled_loader(training, setting.batch_size, setting.num_workers, drop_last=True, **workers),
            DataLoader(
                validation, setting.batch_size, num_workers=setting.num_workers, persistent_workers=True, **workers
            ),
        )


class TorchvisionPeer(TorchPeer):
    """The same optimizer on pixels from our cache, in the memory format that PyTorch recommends."""

    memory_format = torch.channels_last


class TimmPeer(TorchPeer):
    """timm's network, optimizer, schedule and loss, at the rate that its train script derives from the batch size.

    With mixed precision (``--amp --amp-dtype bfloat16``) where the processor computes in it.
    """

    memory_format = torch.channels_last
    num_epochs = 15
    precision = decide_precision(AUTO, torch.device("cpu"))

    def network(self) -> nn.Module:
        """Return timm's ResNet-18."""
        import timm

        network: nn.Module = timm.create_model("resnet18", num_classes=2)
        return network

    def optimizer(self, network: nn.Module) -> Optimizer:
        """Return SGD with Nesterov momentum; the rate is 0.1 for 256 images, in proportion."""
        from timm.optim import create_optimizer_v2
        from timm.scheduler import CosineLRScheduler

        rate = 0.1 * self.setting.batch_size / 256
        optimizer: Optimizer = create_optimizer_v2(network, "sgd", lr=rate, weight_decay=2e-5, momentum=0.9)
        self._schedule = CosineLRScheduler(optimizer, t_initial=self.num_epochs, warmup_t=2, warmup_lr_init=1e-5)
        return optimizer

    def before_epoch(self, optimizer: Optimizer, epoch: int) -> None:
        """Set the rate by timm's scheduler."""
        self._schedule.step(epoch)

    def loss(self, logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        """Return the smoothed cross-entropy, 0.1 as in timm's train script."""
        return functional.cross_entropy(logits_BK, labels_B, label_smoothing=0.1)
