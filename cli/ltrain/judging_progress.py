"""The progress bar of passes over images that train nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cli.progress import progress_bar
from leukemia_models.devices.normalization import Batch


def watched(purpose: str, num_batches: int, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Hand batches on, with a progress bar over them on stderr."""
    with progress_bar(num_batches, purpose, unit="batch") as bar:
        for batch in batches:
            yield batch
            bar.update()
