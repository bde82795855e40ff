"""The peers by name: which module, what it is called in tables, how to get its library.

Nothing is imported here; a peer's module is imported in the peer's own process, where it may fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CEILING, UINT8, AUGMENTED = "ceiling", "uint8", "augmented"


@dataclass(frozen=True)
class PeerEntry:
    """One row of the comparison.

    Attributes
    ----------
    name, title
        For commands and JSON; for people.
    kind
        :data:`CEILING`, :data:`UINT8` batches or :data:`AUGMENTED` float batches.
    module, class_name, options
        What to import and make.
    install
        The command that brings its library, where that is not part of the project.
    is_ours
        Highlighted in the figure.
    process
        Peers with the same name share one process.
    """

    name: str
    title: str
    kind: str
    module: str
    class_name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    install: str = "pip install --group test"
    is_ours: bool = False
    process: str = ""


EXTRA = "pip install --group peers"
FFCV = "apt-get install g++ pkg-config libopencv-dev libturbojpeg0-dev, then pip install ffcv"


def _ceiling(num_threads: int, *, by_row: bool) -> PeerEntry:
    what = "single rows" if by_row else "batch-sized blocks"
    return PeerEntry(
        f"{'rows' if by_row else 'memcpy'}-{num_threads}",
        f"memcpy of {what}, {num_threads} thread{'s' * (num_threads > 1)}",
        CEILING,
        "memcpy_ceiling",
        "MemcpyCeiling",
        {"num_threads": num_threads, "by_row": by_row},
        process="ceiling",
    )


def _stream(num_threads: int, residency: str) -> PeerEntry:
    where = {"ram": "in memory", "mapped": "mapped"}[residency]
    name = f"stream-{num_threads}" if residency == "ram" else f"{residency}-{num_threads}"
    title = f"BatchStream {where}, {num_threads} thread{'s' * (num_threads > 1)}"
    options = {"num_threads": num_threads, "residency": residency}
    return PeerEntry(name, title, UINT8, "batch_stream", "StreamPeer", options, is_ours=True)


PEERS = (
    _ceiling(1, by_row=False),
    _ceiling(2, by_row=False),
    _ceiling(1, by_row=True),
    _ceiling(2, by_row=True),
    _stream(1, "ram"),
    _stream(2, "ram"),
    _stream(1, "mapped"),
    _stream(2, "mapped"),
    PeerEntry(
        "cached-cells",
        "CachedCells in a DataLoader",
        UINT8,
        "cached_cells",
        "CachedCellsPeer",
        is_ours=True,
    ),
    PeerEntry("ffcv", "FFCV, raw mode, 2 threads", UINT8, "ffcv_raw", "FfcvPeer", install=FFCV),
    PeerEntry("npy", ".npy memmap in a DataLoader", UINT8, "npy_dataset", "NpyPeer"),
    PeerEntry("h5py", "h5py in a DataLoader", UINT8, "h5py_dataset", "H5pyPeer"),
    PeerEntry("hf", "Hugging Face datasets", UINT8, "hf_arrow", "HuggingFacePeer", install=EXTRA),
    PeerEntry("mosaicml", "MosaicML Streaming", UINT8, "mosaicml_shards", "MosaicmlPeer", install=EXTRA),
    PeerEntry("webdataset", "WebDataset", UINT8, "webdataset_tar", "WebdatasetPeer", install=EXTRA),
    PeerEntry("litdata", "LitData", UINT8, "litdata_chunks", "LitdataPeer", install=EXTRA),
    PeerEntry(
        "on-the-fly", "on the fly, as the reports did", UINT8, "on_the_fly", "OnTheFlyPeer", {"augmented": False}
    ),
    PeerEntry(
        "augmented-stream",
        "BatchStream + Augmenter",
        AUGMENTED,
        "batch_stream",
        "AugmentedStreamPeer",
        is_ours=True,
    ),
    PeerEntry("kornia", "BatchStream + Kornia", AUGMENTED, "kornia_stream", "KorniaPeer", install=EXTRA),
    PeerEntry("torchvision", "torchvision v2 per sample", AUGMENTED, "torchvision_samples", "TorchvisionPeer"),
    PeerEntry(
        "on-the-fly-augmented",
        "on the fly + torchvision v2",
        AUGMENTED,
        "on_the_fly",
        "OnTheFlyPeer",
        {"augmented": True},
    ),
)
