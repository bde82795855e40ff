"""``ltrain submit``: a submission for each list, from a network that was never trained."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from leukemia_data.decoding.decode import decode_rgb
from leukemia_data.operations.recipe import Preprocessor, Recipe, load_recipe
from leukemia_data.sources.image_rows import list_table_rows
from leukemia_data.stores.object_store import stored_url
from leukemia_data.stores.url import parse_url
from leukemia_data.streams.batch import Batch
from leukemia_models.devices.normalization import Normalization
from leukemia_models.evaluation.predict import predict_probabilities
from leukemia_models.evaluation.settings import NO_TTA, Tta, parse_tta
from leukemia_models.networks.registry import build_model
from leukemia_models.runs.evaluate_part import Predictor
from leukemia_models.runs.predict_files import predict_files
from leukemia_models.runs.run_config import RunConfig, save_config
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.training.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint, save_checkpoint
from leukemia_models.training.history import TrainHistory
from leukemia_models.training.run_state import TrainSettings, TrainState

from ..leukemia_data.consoles import ListConsole

SIZE_PX = 32
CPU = torch.device("cpu")
NO_EPOCH = TrainState(TrainHistory(), None)


def log_odds_of(network: nn.Module, images: list[Path], info: CheckpointInfo, tta: Tta = NO_TTA) -> dict[str, float]:
    """By file name: what the network says of each image alone, put through the recipe here."""
    preprocess = Preprocessor(Recipe.from_dict(info.recipe), [SIZE_PX])
    pixels = np.stack([preprocess(decode_rgb(np.fromfile(path, np.uint8)))[SIZE_PX] for path in images])
    number = torch.arange(len(images))
    zeros = torch.zeros_like(number)
    batch = Batch(torch.from_numpy(pixels), zeros, number, torch.ones_like(number, dtype=torch.bool), zeros, zeros)
    found = predict_probabilities(network, [batch], info.normalization, CPU, tta=tta).log_probabilities_NK
    return {path.name: float(odds) for path, odds in zip(images, found[:, 1] - found[:, 0], strict=True)}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, cells: Path) -> Path:
    """The lab's folder: ``new_dataset/test/0.bmp`` to ``11.bmp``."""
    root = tmp_path_factory.mktemp("lab3")
    (root / "new_dataset" / "test").mkdir(parents=True)
    for number, path in enumerate(sorted(cells.rglob("*.bmp"))[:24:2]):
        shutil.copy2(path, root / "new_dataset" / "test" / f"{number}.bmp")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """A run's folder with its configuration and a final checkpoint alone, whose network answers both classes."""
    folder = tmp_path_factory.mktemp("runs") / "r18"
    folder.mkdir()
    info = CheckpointInfo(
        model_name="resnet18-narrow",
        classes=("hem", "all"),
        size_px=SIZE_PX,
        normalization=Normalization((0.1, 0.1, 0.1), (0.2, 0.2, 0.2)),
        recipe=load_recipe("crop").to_dict(),
        data_fingerprint="0" * 64,
        split_kind="given",
        settings=TrainSettings(epochs=1),
    )
    network = build_model("resnet18-narrow", 2, seed=3)
    odds = log_odds_of(network, sorted(images.rglob("*.bmp")), info)
    with torch.no_grad():
        network.get_parameter("fc.bias")[1] -= float(np.median(list(odds.values())))
    save_checkpoint(folder / "final.safetensors", network, info, NO_EPOCH, resumable=False)
    config = RunConfig(
        model_name="resnet18-narrow",
        cache_dir="cache",
        data_fingerprint="0" * 64,
        data_digest="1" * 32,
        split="given",
        split_seed=0,
        batch_size=8,
        normalization={"mean": (0.1, 0.1, 0.1), "std": (0.2, 0.2, 0.2)},
        settings=TrainSettings(epochs=1),
    )
    save_config(RunFolder(folder), config)
    return folder


@pytest.fixture(scope="module")
def expected(run: Path, images: Path) -> dict[str, int]:
    """By file name: the answer; six of each."""
    checkpoint = load_checkpoint(run / "final.safetensors")
    odds = log_odds_of(checkpoint.build_model(), sorted(images.rglob("*.bmp")), checkpoint.info)
    answers = {name: int(value > 0) for name, value in odds.items()}
    assert sorted(answers.values()) == [0] * 6 + [1] * 6
    return answers


def write_list(path: Path, order: list[int], form: str = "./new_dataset/test/{}.bmp") -> list[str]:
    texts = [form.format(number) for number in order]
    path.write_text("Path\n" + "".join(f"{text}\n" for text in texts), encoding="utf-8")
    return texts


def submission_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def wanted(texts: list[str], expected: Mapping[str, int]) -> list[list[str]]:
    names = [text.replace("\\", "/").rsplit("/", 1)[-1] for text in texts]
    return [["ID", "label"], *([text, str(expected[name])] for text, name in zip(texts, names, strict=True))]


def test_each_list_is_repeated_in_its_order_with_its_strings(
    run: Path, images: Path, expected: dict[str, int], scratch: Path, ltrain: Callable, json_of: Callable
) -> None:
    generator = np.random.default_rng(0)
    forms = ["./new_dataset/test/{}.bmp", "new_dataset/test/{}.bmp", ".\\new_dataset\\test\\{}.bmp"]
    lists = {}
    for depth, form in zip((18, 50, 152), forms, strict=True):
        path = scratch / f"resnet_{depth}_test.csv"
        lists[path] = write_list(path, generator.permutation(12).tolist(), form)
    told = json_of(ltrain("submit", run, *lists, "--root", images, "--device", "cpu", "--json"))
    assert told["num_predicted"] == 12
    assert told["predicted"] == {"hem": 6, "all": 6}
    assert [entry["num_rows"] for entry in told["submissions"]] == [12, 12, 12]
    for path, texts in lists.items():
        assert submission_of(scratch / "submissions" / path.name) == wanted(texts, expected)
    assert sorted(path.name for path in scratch.rglob("*")) == sorted([*(p.name for p in lists)] * 2 + ["submissions"])


def test_lists_may_hold_different_images_and_start_from_their_own_folder(
    run: Path, images: Path, expected: dict[str, int], tmp_path: Path, ltrain: Callable
) -> None:
    lab = Path(shutil.copytree(images, tmp_path / "lab3"))
    first, second = lab / "a_test.csv", lab / "new_dataset" / "b_test.csv"
    texts = {first: write_list(first, [3, 1]), second: write_list(second, [1, 7, 0], "test/{}.bmp")}
    out = tmp_path / "hand" / "in"
    result = ltrain("submit", run, first, second, "--out-dir", out, "--batch-size", 3, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "4 images predicted" in result.stdout
    for path in (first, second):
        assert submission_of(out / path.name) == wanted(texts[path], expected)
        assert str(out / path.name) in result.stdout


@pytest.mark.parametrize(
    "rows",
    [
        "Path\n./new_dataset/test/5.bmp\nnew_dataset/test/2.bmp\n.\\new_dataset\\test\\9.bmp\n",
        "Path\n./new_dataset/test/5.bmp\n./new_dataset/test/2.bmp\n./new_dataset/test/5.bmp\n\nnew_dataset/test/5.bmp\n",
        "\ufeffsep=;\nlabel;Path\n;./new_dataset/test/7.bmp\n; new_dataset/test/0.bmp\n",
        "Path,label\nnew_dataset/test/7.bmp,0\nnew_dataset/test/0.bmp,1\n",
    ],
    ids=["forms", "repeated", "excel", "labelled"],
)
def test_predict_writes_the_same_submission(
    rows: str, run: Path, images: Path, expected: dict[str, int], scratch: Path, ltrain: Callable
) -> None:
    (scratch / "t.csv").write_text(rows, encoding="utf-8")
    common = ("t.csv", "--root", images, "--device", "cpu")
    assert ltrain("submit", run, *common).exit_code == 0
    assert ltrain("predict", run, *common, "--out", "p.csv", "--submission", "s.csv", "--excel").exit_code == 0
    assert (scratch / "s.csv").read_bytes() == (scratch / "submissions" / "t.csv").read_bytes()
    texts = [line.strip(";").split(",")[0] for line in rows.splitlines() if ".bmp" in line]
    assert submission_of(scratch / "s.csv") == wanted(texts, expected)


def test_repeated_rows_are_repeated_and_their_image_predicted_once(
    run: Path, images: Path, expected: dict[str, int], scratch: Path, ltrain: Callable, json_of: Callable
) -> None:
    texts = write_list(scratch / "t.csv", [1, 2, 1, 2, 2])
    told = json_of(ltrain("submit", run, "t.csv", "--root", images, "--device", "cpu", "--json"))
    assert submission_of(scratch / "submissions" / "t.csv") == wanted(texts, expected)
    assert (told["num_predicted"], told["submissions"][0]["num_rows"]) == (2, 5)
    checkpoint = load_checkpoint(run / "final.safetensors")
    console = ListConsole()
    rows = list_table_rows(scratch / "t.csv", images)
    found = predict_files(rows, Predictor.load(checkpoint, device=CPU, batch_size=1, console=console))
    assert [bar.total for bar in console.bars] == [2]
    assert found.predictions.indices_N.tolist() == [0, 1, 2, 3, 4]
    odds = found.predictions.log_probabilities_NK
    assert (odds[0] == odds[2]).all()
    assert (odds[1] == odds[3]).all()


@pytest.mark.parametrize("rows", [["cut.bmp", "0.bmp"], ["0.bmp", "99.bmp", "cut.bmp"]])
def test_predict_writes_no_submission_that_lacks_a_row(
    rows: list[str], run: Path, images: Path, scratch: Path, ltrain: Callable, error_of: Callable
) -> None:
    whole = (images / "new_dataset" / "test" / "0.bmp").read_bytes()
    (scratch / "0.bmp").write_bytes(whole)
    (scratch / "cut.bmp").write_bytes(whole[: len(whole) // 2])
    (scratch / "t.csv").write_text("".join(f"{line}\n" for line in ("Path", *rows)), encoding="utf-8")
    (scratch / "s.csv").write_text("earlier", encoding="utf-8")
    options = ("--out", "p.csv", "--submission", "s.csv", "--device", "cpu")
    message = error_of(ltrain("predict", run, "t.csv", *options), 1)
    bad = rows.index("99.bmp" if "99.bmp" in rows else "cut.bmp")
    assert f"line {bad + 2}" in message
    assert "t.csv" in message
    assert rows[bad] in message
    assert (scratch / "s.csv").read_text(encoding="utf-8") == "earlier"
    # What could be predicted is in predictions.csv, row by row, unless files are missing, which is known before.
    if "99.bmp" not in rows:
        with (scratch / "p.csv").open(encoding="utf-8", newline="") as file:
            found = list(csv.DictReader(file))
        assert [row["id"] for row in found] == rows
        assert [bool(row["prediction"]) for row in found] == [name != "cut.bmp" for name in rows]
        assert [bool(row["problem"]) for row in found] == [name == "cut.bmp" for name in rows]


def test_outputs_never_replace_a_list(
    run: Path, images: Path, scratch: Path, ltrain: Callable, error_of: Callable, files_below: Callable
) -> None:
    write_list(scratch / "t.csv", [1])
    before = files_below(scratch)
    common = ("predict", run, "t.csv", "--root", images, "--device", "cpu")
    for options in (("--out", "t.csv"), ("--submission", "./t.csv", "--out", "p.csv"), ("--submission", "p.csv")):
        more = ("--out", "p.csv") if options == ("--submission", "p.csv") else ()
        assert "would replace" in error_of(ltrain(*common, *options, *more), 2)
    assert files_below(scratch) == before


def test_lists_start_from_a_root_in_a_store(
    run: Path,
    images: Path,
    expected: dict[str, int],
    scratch: Path,
    ltrain: Callable,
    error_of: Callable,
) -> None:
    root = f"memory://{scratch.name}/lab3"
    folder = stored_url(parse_url(root))
    for path in images.rglob("*.bmp"):
        folder.store.write(path.relative_to(images).as_posix(), path.read_bytes())
    texts = write_list(scratch / "t.csv", [4, 8, 4])
    result = ltrain("submit", run, "t.csv", "--root", root, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert submission_of(scratch / "submissions" / "t.csv") == wanted(texts, expected)
    write_list(scratch / "t.csv", [4, 99])
    assert "line 3" in error_of(ltrain("submit", run, "t.csv", "--root", root, "--device", "cpu"), 1)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["./new_dataset/test/1.bmp", "./new_dataset/test/99.bmp"], ["line 3", "99.bmp"]),
        (["./test/1.bmp"], ["line 2", "--root"]),
        (["./new_dataset/test/1.bmp", "./new_dataset/test/cut.bmp"], ["t.csv line 3", "cut.bmp"]),
    ],
    ids=["missing", "all missing", "unusable"],
)
def test_wrong_list_writes_nothing(
    rows: list[str], words: list[str], run: Path, images: Path, scratch: Path, ltrain: Callable, error_of: Callable
) -> None:
    lab = Path(shutil.copytree(images, scratch / "lab3"))
    whole = (lab / "new_dataset" / "test" / "0.bmp").read_bytes()
    (lab / "new_dataset" / "test" / "cut.bmp").write_bytes(whole[: len(whole) // 2])
    write_list(scratch / "good.csv", [1, 2])
    (scratch / "t.csv").write_text("".join(f"{line}\n" for line in ("Path", *rows)), encoding="utf-8")
    message = error_of(ltrain("submit", run, "good.csv", "t.csv", "--root", lab, "--device", "cpu"), 1)
    assert all(word in message for word in words), message
    assert not (scratch / "submissions").exists()


def test_only_unusable_images(run: Path, scratch: Path, ltrain: Callable, error_of: Callable) -> None:
    (scratch / "bad.bmp").write_bytes(b"rubbish")
    (scratch / "t.csv").write_text("Path\nbad.bmp\n", encoding="utf-8")
    assert "none of the 1 images" in error_of(ltrain("submit", run, "t.csv", "--device", "cpu"), 1)


def test_submission_never_replaces_a_list(
    run: Path, images: Path, scratch: Path, ltrain: Callable, error_of: Callable, files_below: Callable
) -> None:
    (scratch / "other").mkdir()
    for path in (scratch / "t.csv", scratch / "other" / "T.csv"):
        write_list(path, [1])
    before = files_below(scratch)
    common = ("--root", images, "--device", "cpu")
    assert "--out-dir" in error_of(ltrain("submit", run, "t.csv", "--out-dir", ".", *common), 2)
    for lists in (("t.csv", "other/T.csv"), ("t.csv", "t.csv")):
        assert "same name" in error_of(ltrain("submit", run, *lists, *common), 2)
    assert files_below(scratch) == before


# --- which network, which views; for predict as for submit ----------------------------------------------------------


def copy_of(
    run: Path, folder: Path, *, judging: Mapping[str, object] | None = None, which: str = "final"
) -> Checkpoint:
    """A run like the first whose checkpoint says how it was evaluated."""
    checkpoint = load_checkpoint(run / "final.safetensors")
    folder.mkdir(exist_ok=True)
    shutil.copy2(run / "run.json", folder)
    info = replace(checkpoint.info, judging=judging)
    save_checkpoint(folder / f"{which}.safetensors", checkpoint.build_model(), info, NO_EPOCH, resumable=False)
    return load_checkpoint(folder / f"{which}.safetensors")


@pytest.mark.parametrize(
    ("evaluated_with", "options", "used"),
    [
        (None, [], NO_TTA),
        (None, ["--tta", "rotations:3", "--tta-average", "probabilities"], parse_tta("rotations:3", "probabilities")),
        ("d4", [], parse_tta("d4", "probabilities")),
        ("d4", ["--tta-average", "logits"], parse_tta("d4")),
        ("d4", ["--tta", "none"], NO_TTA),
    ],
)
def test_views_are_those_of_the_option_else_those_of_the_evaluation(
    evaluated_with: str | None,
    options: list[str],
    used: Tta,
    run: Path,
    images: Path,
    scratch: Path,
    ltrain: Callable,
    json_of: Callable,
) -> None:
    views = parse_tta(evaluated_with, "probabilities").to_dict() if evaluated_with is not None else None
    judging = {"checkpoint": "best", "tta": views} if views is not None else None
    checkpoint = copy_of(run, scratch / "run", judging=judging)
    paths = sorted(images.rglob("*.bmp"))[:4]
    told = json_of(ltrain("predict", "run", *paths, "--out", "p.csv", "--device", "cpu", "--json", *options))
    assert Tta.from_dict(told["tta"]) == used
    with Path("p.csv").open(encoding="utf-8", newline="") as file:
        found = {Path(row["id"]).name: float(row["probability_all"]) for row in csv.DictReader(file)}
    odds = log_odds_of(checkpoint.build_model(), paths, checkpoint.info, used)
    assert found == pytest.approx({name: 1 / (1 + np.exp(-value)) for name, value in odds.items()}, abs=1e-6)


def test_turned_images_get_the_same_submission_with_d4(
    run: Path, images: Path, scratch: Path, write_image: Callable, ltrain: Callable
) -> None:
    names = [f"{number}.bmp" for number in range(12)]
    for name in names:
        write_image(
            scratch / "turned" / name, np.rot90(decode_rgb(np.fromfile(images / "new_dataset/test" / name, np.uint8)))
        )
    (scratch / "t.csv").write_text("Path\n" + "".join(f"{name}\n" for name in names), encoding="utf-8")
    common = ("submit", run, "t.csv", "--tta", "d4", "--device", "cpu")
    assert ltrain(*common, "--root", images / "new_dataset" / "test", "--out-dir", "upright").exit_code == 0
    result = ltrain(*common, "--root", "turned", "--out-dir", "turned")
    assert "each shown as d4, mean of logits" in result.stdout
    assert (scratch / "turned" / "t.csv").read_bytes() == (scratch / "upright" / "t.csv").read_bytes()


def test_final_is_used_where_there_is_one(
    run: Path, images: Path, scratch: Path, ltrain: Callable, json_of: Callable, error_of: Callable
) -> None:
    copy_of(run, scratch / "run", which="best")
    write_list(scratch / "t.csv", [1, 2])
    common = ("submit", "run", "t.csv", "--root", images, "--device", "cpu")
    result = ltrain(*common)
    assert result.exit_code == 0
    assert "no final checkpoint" in result.stderr
    copy_of(run, scratch / "run")
    assert json_of(ltrain(*common, "--json"))["checkpoint"].endswith("final.safetensors")
    assert json_of(ltrain(*common, "--json", "--checkpoint", "best"))["checkpoint"].endswith("best.safetensors")
    assert "last.safetensors" in error_of(ltrain(*common, "--checkpoint", "last"), 1)


@pytest.mark.parametrize(
    ("options", "exit_code", "word"),
    [
        (["--tta", "d8"], 2, "rotations:N"),
        (["--tta", "rotations:1"], 2, "2 to 360"),
        (["--tta-average", "logits"], 2, "one view"),
        (["--tta", "d4", "--tta-average", "votes"], 2, "--tta-average"),
        (["--root", "nowhere"], 2, "nowhere"),
        (["--device", "nope"], 2, "nope"),
        (["gone.csv"], 2, "gone.csv"),
    ],
)
def test_wrong_request(
    options: list[str],
    exit_code: int,
    word: str,
    run: Path,
    images: Path,
    scratch: Path,
    ltrain: Callable,
    error_of: Callable,
) -> None:
    write_list(scratch / "t.csv", [1])
    shutil.copytree(images / "new_dataset", scratch / "new_dataset")
    assert word in error_of(ltrain("submit", run, "t.csv", *options), exit_code)
    assert not (scratch / "submissions").exists()
