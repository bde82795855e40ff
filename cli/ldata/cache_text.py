"""How commands name a cache, for people and in JSON."""

from __future__ import annotations

from collections.abc import Sequence

from cli.output import format_bytes
from leukemia_data.caches import manifest as manifest_module
from leukemia_data.caches.codec import RAW
from leukemia_data.caches.manifest import Manifest
from leukemia_data.stores.url import Location


def cache_summary(directory: Location, manifest: Manifest) -> dict[str, object]:
    """A cache as JSON output names it."""
    return manifest_module.cache_summary(directory, manifest)


def cache_lines(caches: Sequence[tuple[Location, Manifest]]) -> list[str]:
    """One line per cache for people."""
    return [
        f"  {manifest.size_px:>4} px  {directory}  {manifest.num_samples:,} images, {format_bytes(manifest.num_bytes)} "
        f"in {len(manifest.shards)} shards{_codec_note(manifest)}"
        for directory, manifest in caches
    ]


def codec_text(manifest: Manifest) -> str:
    """How a cache stores its images, and how many times smaller than raw they are."""
    return manifest.codec if manifest.codec == RAW else f"{manifest.codec} {manifest.compression_ratio:.2f}x"


def _codec_note(manifest: Manifest) -> str:
    """Nothing of raw caches: that is what everybody expects."""
    return "" if manifest.codec == RAW else f", {codec_text(manifest)} smaller"
