"""The README's example and the code in the documents run (training one epoch of a smaller network)."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import pytest

from .forked_python import forked_python

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FORMAT_PAGE = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
CODE_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    return [code for name, code in CODE_BLOCK.findall(page) if name == language]


def run_command(line: str, folder: Path) -> str:
    tool, *words = line.split("#")[0].split()
    code = f"from cli.{tool} import main; main()"
    done = subprocess.run(
        [*forked_python(), "-c", code, *words], cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done.stdout


def run_python(code: str, folder: Path, python: Sequence[str] = (sys.executable,)) -> str:
    script = folder / "example.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run([*python, script], cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def example_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the README's section "An example" was run from top to bottom."""
    folder = tmp_path_factory.mktemp("readme")
    section = README.split("## An example")[1].split("\n## ")[0]
    commands = [line for block in blocks(section, "sh") for line in block.strip().splitlines()]
    shortened = [re.sub(r"--epochs \d+", "--epochs 1", command) for command in commands]
    outputs = [
        run_command(command.replace("--model resnet18 ", "--model resnet18-narrow "), folder) for command in shortened
    ]
    (folder / "stdout.txt").write_text("\n".join(outputs), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_readme_example_runs_and_prints_the_numbers_it_shows(example_folder: Path) -> None:
    said = (example_folder / "stdout.txt").read_text(encoding="utf-8")
    shown = re.search(r"^transforms\.Normalize.*$", README, re.MULTILINE)
    assert shown is not None
    assert shown.group(0) in said
    assert (example_folder / "demo/run/test/summary.md").stat().st_size > 0
    for name in ("preview.png", "demo/run/history.png", "demo/run/test/confusion.png"):
        assert cv2.imread(str(example_folder / name)).std() > 5


@pytest.mark.slow
def test_readme_python_runs(example_folder: Path) -> None:
    (code,) = blocks(README, "python")
    assert len([line for line in code.splitlines() if line]) == 10
    said = run_python(
        code + "print(tuple(images.shape[1:]), images.dtype, len(indices) == len(labels))\n",
        example_folder,
        forked_python(),
    )
    assert "(128, 128, 3) torch.uint8 True" in said
    assert "Cache(name=sample" in said
    assert "subject-disjoint" in said


@pytest.mark.slow
def test_format_page_reads_a_cache_without_this_project(example_folder: Path) -> None:
    cache = next((example_folder / "demo" / "cache" / "sample").glob("224-*"))
    with_h5py, with_numpy, with_zstandard, _ = blocks(FORMAT_PAGE, "python")
    reading = re.sub(r'Path\(".*?"\)', "Path({!r})", with_h5py)
    code = reading.format(str(cache)) + with_numpy
    said = run_python(f"{code}assert (images[0] == image).all()\n", example_folder).splitlines()
    assert len(said) == 5
    assert all(line.split()[1] in ("hem", "all") for line in said)

    run_command(f"ldata convert {cache} --codec zstd --out {example_folder / 'zstd'}", example_folder)
    (compressed,) = (path.parent for path in (example_folder / "zstd").rglob("manifest.json"))
    reading_row = reading.format(str(compressed)).replace('file["images"][0]', 'file["images"][5]')
    code = f"import hdf5plugin\n{reading_row}expected = image\n{with_zstandard}"
    assert len(run_python(f"{code}assert (image == expected).all()\n", example_folder).splitlines()) == 5
