"""Digests of what the command line makes: the same before and after a change that should change no result.

Generated cells are built into caches by every shipped recipe at two sizes; two seeded runs are trained for two epochs
on the CPU, evaluated, and asked for predictions. Everything runs through ``python -m cli.ldata`` and
``python -m cli.ltrain`` as processes, and nothing of the project is imported here, so that one copy of this script
measures any version::

    PYTHONPATH=old-checkout python benchmarks/same_results.py --json > before.json
    PYTHONPATH=. python benchmarks/same_results.py --against before.json

Digests can be compared on one machine with one set of libraries; the output names the libraries. Times, paths, inodes
and the version of the project are left out of what is digested. Where LEUKEMIA_REAL_DATA names a folder with
``cnmc_fold1/all`` and ``cnmc_fold1/hem``, the first 100 images of each are built too.
"""

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

SIZES = ("64", "128")
RECIPES = (
    "report-a", "crop", "fit", "gabor", "gray", "gray-world", "high-pass", "lab-clahe", "macenko", "mean-filter",
    "photo", "photo-cell", "raw", "reinhard", "report-a-strong", "report-b",
)  # fmt: skip
RUNS = {
    "plain": (),
    "augmented": (
        "--augment", "report-b", "--sampling", "class-balanced", "--optimizer", "adamw", "--ema", "0.9",
        "--tta", "d4",
    ),
}  # fmt: skip
REAL_IMAGES_PER_CLASS = 100

# What differs between two runs of the same code: places, times, the project's version, and digests of what holds them.
# The digests of shards and tensors are not among what is lost: here they are made again from the bytes.
PASSING_KEYS = {
    "cache_dir", "data_wait_share", "digest", "images_per_s", "index", "leukemia-cells", "seconds", "source_state",
}  # fmt: skip
PASSING_DATASETS = {"source_ctimes_ns", "source_mtimes_ns", "source_inodes"}
LIBRARIES = ("h5py", "numpy", "scikit-learn", "scipy", "torch")


def main() -> None:
    args = arguments()
    report = {
        "libraries": libraries(args.python),
        "digests": all_digests(args.python, os.environ.get("LEUKEMIA_REAL_DATA")),
    }
    print(json.dumps(report, indent=1) if args.json else text(report))
    if args.against is not None:
        sys.exit(compared(json.loads(args.against.read_text(encoding="utf-8")), report))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Digests of caches, weights and predictions made by the command line.")
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter that runs the commands; PYTHONPATH holds for it"
    )
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    parser.add_argument(
        "--against", type=Path, help="JSON of an earlier run: name what differs, and exit with 1 if anything does"
    )
    return parser.parse_args()


def text(report: dict[str, dict[str, str]]) -> str:
    return "\n".join(f"{digest}  {name}" for name, digest in report["digests"].items())


def compared(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> int:
    """Say on stderr what differs between two reports; 1 if a digest does."""
    for name in sorted(before["libraries"]):
        if before["libraries"][name] != after["libraries"].get(name):
            print(
                f"other library: {name} {before['libraries'][name]}, now {after['libraries'].get(name)}",
                file=sys.stderr,
            )
    old, new = before["digests"], after["digests"]
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    for name in changed:
        print(
            f"differs: {name}" if name in old and name in new else f"only {'before' if name in old else 'now'}: {name}",
            file=sys.stderr,
        )
    print(f"{len(old.keys() & new.keys())} compared, {len(changed)} differ", file=sys.stderr)
    return int(bool(changed))


def libraries(python: str) -> dict[str, str]:
    """Version of each library that results depend on; says on stderr which copy of the project is measured."""
    code = (
        "import cli, cv2, sys; from importlib.metadata import version;"
        "print('measuring', cli.__file__, file=sys.stderr);"
        f"print('opencv', cv2.__version__, *(f'{{name}} {{version(name)}}' for name in {LIBRARIES}))"
    )
    words = run([python, "-c", code], Path(tempfile.gettempdir()), show_stderr=True).split()
    return dict(zip(words[::2], words[1::2], strict=True))


def all_digests(python: str, real_data: str | None) -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="same-results-") as folder:
        work = Path(folder)
        make(python, work)
        if real_data:
            make_real(python, work, Path(real_data).resolve())
        return {name: digest for part in (cache_digests(work), run_digests(work)) for name, digest in part}


def make(python: str, work: Path) -> None:
    """Build, train, evaluate and predict below `work`."""
    ldata, ltrain = [python, "-m", "cli.ldata"], [python, "-m", "cli.ltrain"]
    sizes = [word for size in SIZES for word in ("--size", size)]
    run([*ldata, "sample", "images", "--subjects", "12", "--cells", "8", "--seed", "3"], work)
    for recipe in RECIPES:
        run([*ldata, "build", "images", "--recipe", recipe, *sizes, "--cache", "caches", "--name", recipe], work)
    for name, options in RUNS.items():
        out = f"runs/{name}"
        choice = ["--cache", f"caches/{RECIPES[0]}", "--size", SIZES[0], "--model", "resnet18-narrow"]
        run([*ltrain, *choice, "--epochs", "2", "--seed", "7", "--device", "cpu", *options, "--out", out], work)
        run([*ltrain, "evaluate", out, "--part", "valid", "--device", "cpu"], work)
        run([*ltrain, "predict", out, "--part", "all", "--device", "cpu"], work)
        run([*ltrain, "predict", out, "images", "--device", "cpu", "--out", f"{out}/files.csv"], work)


def make_real(python: str, work: Path, real_data: Path) -> None:
    """Build the first images of each class of `real_data`."""
    paths = [
        path
        for name in ("all", "hem")
        for path in sorted((real_data / "cnmc_fold1" / name).iterdir())[:REAL_IMAGES_PER_CLASS]
    ]
    with (work / "real.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["Path"], *([path.relative_to(real_data).as_posix()] for path in paths)])
    root = ["--root", str(real_data)]
    run(
        [python, "-m", "cli.ldata", "build", "real.csv", *root, "--size", "224", "--cache", "caches", "--name", "real"],
        work,
    )


def run(command: list[str], folder: Path, *, show_stderr: bool = False) -> str:
    """What `command` prints on stdout; its failure ends the script."""
    parts = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    path = os.pathsep.join(str(Path(part).resolve()) for part in parts)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if show_stderr:
        print(done.stderr, end="", file=sys.stderr)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def cache_digests(work: Path) -> Iterator[tuple[str, str]]:
    for path in sorted((work / "caches").rglob("*")):
        name = path.relative_to(work).as_posix()
        if path.name.startswith("shard-"):
            yield name, digest_of(path.read_bytes())
        elif path.name == "manifest.json":
            yield from document_digests(name, path.read_bytes())
        elif path.name.startswith("index-"):
            # The name of an index is its digest, and it holds change times.
            yield f"{name.rpartition('/')[0]}/index", index_digest(path)


def run_digests(work: Path) -> Iterator[tuple[str, str]]:
    for path in sorted((work / "runs").rglob("*")):
        name = path.relative_to(work).as_posix()
        if path.suffix == ".safetensors":
            yield from checkpoint_digests(name, path.read_bytes())
        elif path.suffix == ".json":
            yield from document_digests(name, path.read_bytes())
        elif path.suffix == ".csv":
            yield name, table_digest(path)
        elif path.suffix in {".md", ".toml"}:
            yield name, digest_of(path.read_bytes())


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def document_digests(name: str, data: str | bytes) -> Iterator[tuple[str, str]]:
    """SHA-256 of a JSON document without what passes, and of its numbers alone: a change of wording keeps these."""
    document = lasting(json.loads(data))
    yield name, digest_of(json.dumps(document, sort_keys=True).encode())
    yield f"{name} numbers", digest_of(json.dumps(without_words(document), sort_keys=True).encode())


def lasting(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return {key: lasting(part) for key, part in value.items() if key not in PASSING_KEYS}
    return [lasting(part) for part in value] if isinstance(value, list) else value


def without_words(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return {key: without_words(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_words(part) for part in value]
    return "" if isinstance(value, str) else value


def index_digest(path: Path) -> str:
    """SHA-256 of the datasets of an index, by name, without times and inodes."""
    total = hashlib.sha256()
    with h5py.File(path) as file:
        for name in sorted(set(file) - PASSING_DATASETS):
            values = file[name][()]
            total.update(f"{name} {values.dtype.str} {values.shape}".encode() + values.tobytes())
    return total.hexdigest()


def table_digest(path: Path) -> str:
    """SHA-256 of a CSV table without columns of times."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    kept = [number for number, column in enumerate(rows[0]) if column not in PASSING_KEYS]
    return digest_of(json.dumps([[row[number] for number in kept] for row in rows]).encode())


def checkpoint_digests(name: str, data: bytes) -> Iterator[tuple[str, str]]:
    """SHA-256 of the tensors of a .safetensors file (8 bytes of length, JSON, bytes), and of what else it says."""
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    metadata = header.pop("__metadata__")
    total = hashlib.sha256()
    for tensor, entry in sorted(header.items()):
        first, last = entry["data_offsets"]
        total.update(f"{tensor} {entry['dtype']} {entry['shape']}".encode() + data[begin + first : begin + last])
    yield f"{name} tensors", total.hexdigest()
    yield from document_digests(f"{name} content", metadata["content"])


if __name__ == "__main__":
    main()
