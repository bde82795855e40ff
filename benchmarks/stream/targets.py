"""What the project set itself, and whether a run reached it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stream.rounds import Throughput

MOST_PRIVATE_BYTES = 200e6


@dataclass(frozen=True)
class Target:
    """One aim.

    Attributes
    ----------
    text
        The aim in words.
    aim, at_least
        The number, and whether it is a lower or an upper bound.
    values
        What was measured: a ratio per round or a value per process; empty where it could not be measured.
    unit
        Of the number.
    """

    text: str
    aim: float
    values: tuple[float, ...]
    at_least: bool = True
    unit: str = ""

    @property
    def median(self) -> float | None:
        """Median of the values."""
        return statistics.median(self.values) if self.values else None

    @property
    def reached(self) -> bool | None:
        """Whether the median is on the right side; None where nothing was measured."""
        if self.median is None:
            return None
        return self.median >= self.aim if self.at_least else self.median <= self.aim

    def as_json(self) -> dict[str, Any]:
        """Everything, for the JSON file."""
        return {
            "text": self.text,
            "aim": self.aim,
            "at_least": self.at_least,
            "unit": self.unit,
            "median": self.median,
            "values": list(self.values),
            "reached": self.reached,
        }


def throughput_targets(results: Sequence[Throughput]) -> list[Target]:
    """Ratios of images per second, taken within each round."""
    by_name = {result.entry.name: result for result in results}

    def ratio(text: str, aim: float, ours: str, other: str) -> Target:
        if ours not in by_name or other not in by_name:
            return Target(text, aim, ())
        pairs = zip(by_name[ours].rounds, by_name[other].rounds, strict=False)
        return Target(text, aim, tuple(a / b for a, b in pairs))

    return [
        ratio("uint8 batches over the memcpy ceiling, 1 thread each", 0.9, "stream-1", "memcpy-1"),
        ratio("uint8 batches over the memcpy ceiling, 2 threads each", 0.9, "stream-2", "memcpy-2"),
        ratio("mapped uint8 batches over the memcpy ceiling, 1 thread each", 0.9, "mapped-1", "memcpy-1"),
        ratio("mapped uint8 batches over the memcpy ceiling, 2 threads each", 0.9, "mapped-2", "memcpy-2"),
        ratio("uint8 batches over h5py with 2 workers", 10, "stream-2", "h5py"),
        ratio("uint8 batches over FFCV's raw mode, 2 threads each", 1, "stream-2", "ffcv"),
        ratio("mapped uint8 batches over FFCV's raw mode, 2 threads each", 1, "mapped-2", "ffcv"),
        ratio("augmented batches over Kornia", 3, "augmented-stream", "kornia"),
        ratio("augmented batches over torchvision v2, 2 workers", 2, "augmented-stream", "torchvision"),
        ratio("augmented batches over on the fly, 2 workers", 8, "augmented-stream", "on-the-fly-augmented"),
    ]


def scale_targets(scale: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Target]:
    """Seconds and bytes of the fresh processes."""
    first, large = scale["first_batch"], scale["open_large"]
    texts = {name: f"{scale[name][0]['num_samples']:,}" for name in scale}
    return [
        Target(
            f"first batch of {texts['first_batch']} images after opening",
            0.5,
            tuple(run["first_batch_s"] for run in first),
            at_least=False,
            unit="s",
        ),
        Target(f"opening {texts['open_large']} samples", 1, tuple(run["open_s"] for run in large), False, "s"),
        Target(
            f"private memory of {texts['open_large']} opened samples with their labels, bytes a sample",
            100,
            tuple(_private(run, "private_bytes_with_labels") / run["num_samples"] for run in large),
            at_least=False,
        ),
        *(
            Target(
                f"private memory of the mapped stream on {texts[name]} images, batches included",
                MOST_PRIVATE_BYTES / 1e6,
                tuple(_private(run, "private_bytes") / 1e6 for run in scale[name]),
                at_least=False,
                unit="MB",
            )
            for name in ("memory_full", "memory_larger")
        ),
    ]


def _private(run: Mapping[str, Any], name: str) -> float:
    """Allocated memory where the system tells it, else memory that no other process has mapped."""
    memory: Mapping[str, float] = run[name]
    return memory.get("anonymous", memory["uss"])
