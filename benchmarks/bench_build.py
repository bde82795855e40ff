"""How fast a build is, beside the plain way to do the same: ratios from one run on one machine.

The plain way is a joblib loop over threads that does the same OpenCV calls for each image (imread, CLAHE of each
channel, unsharp mask, crop, resize) and is run once per size, keeping the results in memory. `ldata build` does both
sizes at once and also writes, hashes and flushes the caches; it is timed as a whole command, start-up included.

Usage: python benchmarks/bench_build.py SOURCE [--repeats N] [--json OUT.json]
SOURCE is a C-NMC folder; without one, a generated sample of 960 cells is used.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import h5py
import joblib
import numpy as np
import psutil

from leukemia_data.caches.opening import open_chosen_cache
from leukemia_data.sources.sample_set import write_sample
from leukemia_data.sources.source import list_source

SIZES_PX = (128, 224)
CROP_PX = 270


def preprocess_plainly(path: Path, size_px: int) -> np.ndarray:
    """The recipe report-a as one writes it without a library; returns BGR."""
    image = cv2.imread(str(path))
    clahe = cv2.createCLAHE(3.0, (9, 9))
    image = cv2.merge([clahe.apply(channel) for channel in cv2.split(image)])
    image = cv2.addWeighted(image, 2.5, cv2.GaussianBlur(image, (0, 0), 3), -1.5, 0)
    top, left = (image.shape[0] - CROP_PX) // 2, (image.shape[1] - CROP_PX) // 2
    image = image[top : top + CROP_PX, left : left + CROP_PX]
    return cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA)


def time_plain_loop(paths: list[Path]) -> tuple[float, dict[int, list[np.ndarray]]]:
    """Seconds for both sizes, one pass each, and the images."""
    cv2.setNumThreads(1)
    images = {}
    started = time.perf_counter()
    for size_px in SIZES_PX:
        parallel = joblib.Parallel(n_jobs=os.cpu_count(), backend="threading")
        images[size_px] = parallel(joblib.delayed(preprocess_plainly)(path, size_px) for path in paths)
    return time.perf_counter() - started, images


def time_command(*arguments: object) -> tuple[float, dict]:
    """Seconds of a whole ldata command and its JSON answer."""
    started = time.perf_counter()
    done = subprocess.run(command_line(*arguments), check=True, capture_output=True, text=True)
    return time.perf_counter() - started, json.loads(done.stdout)


def command_line(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from cli.ldata import main; main()", *map(str, arguments), "--json"]


def peak_memory_bytes(*arguments: object) -> int:
    """Largest resident memory of any process of a command, looked at every 20 ms (of an extra, untimed run)."""
    peak = 0
    with psutil.Popen(command_line(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as parent:
        while parent.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in (parent, *parent.children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        peak = max(peak, process.memory_info().rss)
            time.sleep(0.02)
    return peak


def link_copy(source: Path, copy: Path) -> None:
    """A second tree of the same files (hard links), which may be changed without touching the source."""
    shutil.copytree(source, copy, copy_function=os.link)


def compare_pixels(cache_root: Path, paths: list[Path], plain: dict[int, list[np.ndarray]], source: Path) -> dict:
    """Mean and largest difference in grey levels between the caches and the plain loop."""
    result = {}
    for size_px in SIZES_PX:
        cache = open_chosen_cache(cache_root, size_px=size_px)
        number_of = {record_id: number for number, record_id in enumerate(cache.table.id_texts)}
        reader, total, largest = cache.reader, 0.0, 0
        for path, expected_bgr in zip(paths, plain[size_px], strict=True):
            image = reader.image(number_of[path.relative_to(source).as_posix()])
            difference = np.abs(image.astype(np.int16) - expected_bgr[..., ::-1])
            total += float(difference.mean())
            largest = max(largest, int(difference.max()))
        result[size_px] = {"mean": total / len(paths), "max": largest}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, dest="json_path")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:
        result = run(arguments.source, Path(scratch), arguments.repeats)
    print_table(result)
    if arguments.json_path:
        arguments.json_path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def run(given_source: Path | None, scratch: Path, repeats: int) -> dict:
    """All measurements, plain loop and build in turn."""
    if given_source is None:
        given_source = scratch / "sample"
        write_sample(given_source, num_subjects=24, cells_per_subject=40)
    source, cache_root = scratch / "source", scratch / "cache"
    link_copy(given_source, source)
    paths = [record.path for record in list_source([source]).records]
    build = ("build", source, "--size", 128, "--size", 224, "--cache", cache_root)
    runs: dict[str, list[float]] = {"plain": [], "build": [], "no_op": [], "one_added": []}
    inside: dict[str, list[float]] = {"build": [], "no_op": [], "one_added": []}
    plain: dict[int, list[np.ndarray]] = {}
    extra = paths[0].with_name("UID_9999_1_1_all.bmp")
    for _ in range(repeats):
        shutil.rmtree(cache_root, ignore_errors=True)
        seconds, plain = time_plain_loop(paths)
        runs["plain"].append(seconds)
        for name in ("build", "no_op", "one_added"):
            if name == "one_added":
                frame = cv2.imread(str(paths[0]))
                cv2.imwrite(str(extra), np.roll(frame, 3, axis=0))
            seconds, answer = time_command(*build)
            runs[name].append(seconds)
            inside[name].append(answer["seconds"])
        extra.unlink()
        time_command(*build)
    shutil.rmtree(cache_root)
    peak_bytes = peak_memory_bytes(*build)
    return {
        "num_images": len(paths),
        "source_bytes": sum(path.stat().st_size for path in paths),
        "seconds": runs,
        "seconds_inside_the_command": inside,
        "images_per_s": {name: len(paths) / statistics.median(runs[name]) for name in ("plain", "build")},
        "build_over_plain": [p / b for p, b in zip(runs["plain"], runs["build"], strict=True)],
        "no_op_share_of_build": [n / b for n, b in zip(runs["no_op"], runs["build"], strict=True)],
        "one_added_share_of_build": [n / b for n, b in zip(runs["one_added"], runs["build"], strict=True)],
        "peak_bytes_of_any_process": peak_bytes,
        "pixel_difference": compare_pixels(cache_root, paths, plain, source),
        "machine": machine(),
    }


def machine() -> dict:
    return {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "h5py": h5py.__version__,
    }


def print_table(result: dict) -> None:
    def spread(values: list[float], form: str) -> str:
        return f"{statistics.median(values):{form}}  (min {min(values):{form}}, max {max(values):{form}})"

    print(f"{result['num_images']} images, {result['machine']}")
    print(f"plain loop, once per size   {spread(result['seconds']['plain'], '.2f')} s")
    print(f"ldata build, both sizes     {spread(result['seconds']['build'], '.2f')} s")
    print(f"images/s, build over plain  {spread(result['build_over_plain'], '.2f')}")
    print(f"nothing changed             {spread(result['seconds']['no_op'], '.2f')} s whole command")
    print(f"  share of the build        {spread(result['no_op_share_of_build'], '.2%')}")
    print(f"one image added             {spread(result['seconds']['one_added'], '.2f')} s whole command")
    print(f"  share of the build        {spread(result['one_added_share_of_build'], '.2%')}")
    inside = {name: statistics.median(values) for name, values in result["seconds_inside_the_command"].items()}
    print(f"seconds inside the command  {', '.join(f'{name} {value:.2f}' for name, value in inside.items())}")
    print(f"peak memory of any process  {result['peak_bytes_of_any_process'] / 1e6:.0f} MB")
    for size_px, difference in result["pixel_difference"].items():
        print(f"pixels against plain, {size_px} px: mean {difference['mean']:.5f}, max {difference['max']} grey levels")


if __name__ == "__main__":
    main()
