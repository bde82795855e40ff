"""Results as a table, and as JSON."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stream.rounds import Throughput
from stream.targets import Target

PACKAGES = (
    "leukemia-cells",
    "torch",
    "torchvision",
    "numpy",
    "h5py",
    "opencv-python-headless",
    "kornia",
    "webdataset",
    "litdata",
    "mosaicml-streaming",
    "datasets",
    "ffcv",
    "numba",
)


def machine() -> dict[str, Any]:
    """What it ran on, with the versions of everything that matters."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor_name() -> str:
    """The processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def throughput_table(results: Sequence[Throughput]) -> str:
    """One line a peer."""
    lines = [f"{'':38}{'images/s':>10}{'smallest':>10}{'largest':>10}{'1st epoch':>11}"]
    for result in results:
        if result.median is None:
            lines.append(f"{result.entry.title:38}{'not measured: ' + str(result.problem):>10}")
            continue
        numbers = (result.median, min(result.rounds), max(result.rounds))
        cells = "".join(f"{number:>10,.0f}" for number in numbers)
        note = f"   ({result.problem})" if result.problem else ""
        lines.append(f"{result.entry.title:38}{cells}{result.first or 0:>11,.0f}{note}")
    return "\n".join(lines)


def target_table(targets: Sequence[Target]) -> str:
    """One line an aim."""
    words = {True: "reached", False: "NOT REACHED", None: "not measured"}
    lines = []
    for target in targets:
        aim = f"{'at least' if target.at_least else 'at most'} {target.aim:g} {target.unit}".rstrip()
        lines.append(f"{target.text:76}{aim:>16}  {_measured(target):34}{words[target.reached]}")
    return "\n".join(lines)


def _measured(target: Target) -> str:
    if target.median is None:
        return "-"
    spread = f"({min(target.values):.3g} to {max(target.values):.3g})"
    return f"{target.median:.3g} {target.unit} {spread}".replace("  ", " ")
