"""How a source is understood, on the command line: said before a build, refused where it is ambiguous, and kept.

The sources are siblings of what users have met: other names, other words, the same kind.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.caches.cache import find_cache_dirs, open_cache
from leukemia_data.caches.manifest import Manifest
from leukemia_data.sources.reading import Reading
from leukemia_data.splitting.leaks import check_leaks

RAW = ("--recipe", "raw", "--size", 32, "--n-jobs", 1)


@pytest.fixture
def tree(scratch: Path, write_image: Callable) -> Callable[..., Path]:
    """``tree("cells", "a/{}.png", num=2)``: a folder of small images of noise, all of them different."""
    rng = np.random.default_rng(13)

    def write(root: str, *patterns: str, num: int = 2, side_px: int = 32) -> Path:
        for pattern in patterns:
            for number in range(num):
                noise = rng.integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
                write_image(Path(root) / pattern.format(number), noise)
        return Path(root)

    return write


@pytest.fixture
def build(ldata: Callable) -> Callable[..., Manifest]:
    """``build(source, ...)``: build it and open what was made; stderr is ``build.said``."""

    def run(*arguments: object) -> Manifest:
        root = Path("made") / str(len(list(Path("made").iterdir())) if Path("made").is_dir() else 0)
        result = ldata("build", *arguments, *RAW, "--cache", root)
        assert result.exit_code == 0, result.output
        run.said = result.stderr.splitlines()
        [directory] = find_cache_dirs(root)
        run.cache = open_cache(directory)
        return run.cache.manifest

    return run


@pytest.fixture
def refused(ldata: Callable, error_of: Callable) -> Callable[..., str]:
    """``refused(source)``: the text of the refusal, all its lines, of scan, build and audit alike."""

    def run(*arguments: object) -> str:
        texts = set()
        for command in (("scan",), ("build", *RAW), ("audit",)):
            result = ldata(command[0], *arguments, *command[1:])
            error_of(result, 1)
            texts.add(result.stderr.partition("Error: ")[2])
        assert len(texts) == 1
        assert not Path("cache").exists()
        return texts.pop()

    return run


def write_table(path: str, header: str, *rows: str, encoding: str = "utf-8") -> Path:
    Path(path).write_bytes(("\r\n".join([header, *rows]) + "\r\n").encode(encoding))
    return Path(path)


def counts(manifest: Manifest) -> dict[str, int]:
    return dict(Reading.from_dict(manifest.reading).classes)


def splits(manifest: Manifest) -> dict[str, int]:
    return {split.name: split.num_images for split in Reading.from_dict(manifest.reading).splits}


# --- what is printed --------------------------------------------------------------------------------------------


def test_scan_says_everything_and_changes_nothing(tree: Callable, ldata: Callable, json_of: Callable) -> None:
    source = tree("cells", "train/blast/P1/{}.png", "test/normal/P2/{}.png", "train/@eaDir/{}.png")
    (source / "ages.csv").write_text("name,age\nx,3\n", encoding="utf-8")
    before = sorted(Path().rglob("*"))
    result = ldata("scan", source)
    assert result.exit_code == 0, result.output
    starts = [
        "4 images",
        "classes: blast 2, normal 2",
        "positive class: blast (",
        "splits: train 2 (from train), test 2",
        "subjects: 2 (from folders",
    ]
    assert [line[: len(start)] for line, start in zip(result.stdout.splitlines(), starts, strict=False)] == starts
    for words in ("frames: 32x32 RGB", "table: ages.csv is not read", "passed over: 1 folders", "suggested recipe: "):
        assert f"\n{words}" in result.stdout
    told = json_of(ldata("scan", source, "--json"))
    assert Reading.from_dict(told["reading"]).classes == (("blast", 2), ("normal", 2))
    assert (told["num_images"], told["recipe"]) == (4, "report-a")
    assert sorted(Path().rglob("*")) == before


def test_a_build_and_an_audit_say_the_short_form_before_they_work(tree: Callable, ldata: Callable) -> None:
    source = tree("cells", "blast/{}.png", "normal/{}.png", "@eaDir/{}.png", "blast/masks/{}.png", num=3)
    for name in (*(f"table{number}.csv" for number in range(9)), "read.me", ".hidden"):
        (source / name).write_text("a,b\n1,2\n", encoding="utf-8")
    (source / "broken.png").mkdir()
    for command in (("build", *RAW), ("audit",)):
        result = ldata(command[0], source, "--exclude", "broken.png", *command[1:])
        assert result.exit_code == 0, result.output
        said = [line for line in result.stderr.splitlines() if not line.startswith("source: ")]
        assert said[0] == "  classes: blast 3, normal 3 (from folder level 1)"
        assert len(said) <= 12
        assert any("ldata scan" in line for line in said)
    # Also of a build that fails.
    (source / "blast" / "9.png").write_bytes(b"no image")
    result = ldata("build", source, *RAW, "--exclude", "broken.png")
    assert result.exit_code == 1
    assert "classes: blast 4, normal 3" in result.stderr


def test_options_are_kept_compared_and_shown(
    tree: Callable, ldata: Callable, json_of: Callable, age_files: Callable
) -> None:
    source = tree("cells", "Early/{}.png", "Late/{}.png", "Benign/{}.png")
    age_files(source)
    given = ("--merge", "Sick=Early+Late", "--classes", "Sick,Benign", "--subject-from", "none")
    assert ldata("build", source, *RAW, *given).exit_code == 0
    [directory] = find_cache_dirs(Path("cache"))
    options = {"merge": [["Sick", ["Early", "Late"]]], "classes": ["Sick", "Benign"], "subject_from": "none"}
    manifest = open_cache(directory).manifest
    assert manifest.reading["options"] == options
    assert manifest.classes == ("Sick", "Benign")
    assert "Nothing to do" in ldata("build", source, *RAW, *given).stdout
    assert "Sick 4, Benign 2" in ldata("info", directory).stdout
    assert json_of(ldata("info", directory, "--json"))["reading"]["options"] == options
    changed = ldata("build", source, *RAW)
    assert changed.exit_code == 0
    assert "options: --classes Sick,Benign --merge Sick=Early+Late --subject-from none, now none" in changed.stderr
    assert "Sick -> Early 2, Sick -> Late 2" in changed.stderr


@pytest.mark.parametrize(
    ("option", "exit_code", "word"),
    [
        (["--class-level", "first"], 2, "--class-level"),
        (["--subject-pattern", "("], 2, "--subject-pattern"),
        (["--subject-from", "table"], 2, "--subject-from"),
        (["--classes", "Early,Nothing"], 2, "Nothing"),
        (["--merge", "x=Nothing"], 2, "Nothing"),
        (["--merge", "x"], 2, "NEW=A+B"),
        (["--split-folders", "first=a"], 2, "first"),
        (["--class-level", "7"], 1, "4 images"),
        (["--exclude", "*.png"], 1, "no images"),
    ],
)
def test_wrong_options(option: list[str], exit_code: int, word: str, tree: Callable, ldata: Callable) -> None:
    source = tree("cells", "Early/{}.png", "Late/{}.png")
    result = ldata("scan", source, *option)
    assert (result.exit_code, "Traceback" in result.output) == (exit_code, False)
    assert word in result.stderr


def test_a_refusal_names_every_reading_and_each_can_be_copied(
    tree: Callable, refused: Callable, build: Callable
) -> None:
    source = tree("cells", "sick/T1/{}.png", "sick/T2/{}.png", "well/old/{}.png", "well/young/{}.png")
    first, *readings = refused(source).splitlines()
    assert first.startswith("cells: ")
    chosen = {}
    for line in readings:
        option, _, text = line.strip().partition("  ")
        chosen[option] = counts(build(source, *shlex.split(option)))
        assert all(f"{name} {count}" in text for name, count in chosen[option].items())
    assert chosen == {
        "--class-level 2": {"T1": 2, "T2": 2, "old": 2, "young": 2},
        "--class-level 1": {"sick": 4, "well": 4},
    }


# --- kinds that users have met ----------------------------------------------------------------------------------


def test_treatments_beside_each_other_are_no_classes(tree: Callable, build: Callable) -> None:
    kinds = ("Mature", "Naive", "Blastoid")
    manifest = build(tree("set", *(f"{how}/{kind}/{{}}.png" for how in ("Raw", "Augmented") for kind in kinds)))
    assert counts(manifest) == dict.fromkeys(sorted(kinds), 4)
    assert manifest.subjects.count == 0
    assert any("treatments" in line for line in build.said)


@pytest.mark.parametrize("words", ["Training TestB", "XTrain XTest", "train_images holdout_images", "TRAIN evaluation"])
def test_words_of_splits_in_other_forms(words: str, tree: Callable, build: Callable) -> None:
    manifest = build(tree("set", *(f"{word}/{kind}/{{}}.png" for word in words.split() for kind in ("cll", "mcl"))))
    assert counts(manifest) == {"cll": 4, "mcl": 4}
    assert sum(splits(manifest).values()) == 8
    assert "train" in splits(manifest)


def test_a_table_that_speaks_of_several_splits_gives_none(tree: Callable, build: Callable) -> None:
    tree("set", "{}.png", num=3)
    manifest = build(write_table("set/train_and_test.csv", "Path,label", "0.png,x", "1.png,y", "2.png,y"))
    assert splits(manifest) == {}
    assert any("--split-column" in line for line in build.said)


def test_roots_that_are_splits(tree: Callable, build: Callable) -> None:
    for part in ("Training", "Validation", "Holdout"):
        tree(f"set/{part}", "mm/{}.png", "mgus/{}.png")
    roots = [Path("set") / part for part in ("Training", "Validation", "Holdout")]
    assert splits(build(*roots)) == splits(build("set")) == {"train": 4, "valid": 4, "test": 4}


def test_a_stray_picture_keeps_a_good_cache(tree: Callable, ldata: Callable, error_of: Callable) -> None:
    source = tree("set", "Cells v2/mature/{}.png", "Cells v2/blastic/{}.png", num=3)
    assert ldata("build", source, *RAW).exit_code == 0
    [directory] = find_cache_dirs(Path("cache"))
    tree("set", "Cells v2/plate{}.png", num=1)
    error = error_of(ldata("build", source, *RAW), 1)
    assert "Cells v2/plate0.png" in error
    assert open_cache(directory).manifest.classes == ("blastic", "mature")
    assert ldata("build", source, *RAW, "--exclude", "plate*").exit_code == 0


def test_one_folder_is_no_class(tree: Callable, build: Callable, ldata: Callable, error_of: Callable) -> None:
    manifest = build(tree("idb", "pics2/c{}_1.png", "pics2/c{}_0.png"))
    assert (manifest.classes, Reading.from_dict(manifest.reading).num_unlabelled) == (("hem", "all"), 4)
    assert any("pics2" in line for line in build.said)
    source = tree("web", "pictures/{}.png")
    write_table("web/truth.csv", "file,dx", "pictures/0.png,x", "pictures/1.png,y")
    assert "truth.csv" in error_of(ldata("build", source, *RAW), 1)
    assert counts(build("web/truth.csv")) == {"x": 1, "y": 1}


def test_folders_against_names(tree: Callable, refused: Callable, build: Callable) -> None:
    source = tree("set", "remission/UID_3_{}_1_all.bmp", "control/UID_H5_{}_1_hem.bmp", "debris/UID_H6_{}_1_hem.bmp")
    text = refused(source)
    assert "--class-level name" in text
    assert "--class-level 1" in text
    assert counts(build(source, "--class-level", "name")) == {"hem": 4, "all": 2}
    manifest = build(source, "--classes", "control,remission")
    assert counts(manifest) == {"control": 2, "remission": 2}
    assert manifest.subjects.count == 2


def test_columns_of_other_names_are_read_or_refused_with_the_option(
    tree: Callable, refused: Callable, build: Callable
) -> None:
    tree("set", "i/{}.png", num=4)
    rows = ["i/0.png,aml,7,train", "i/1.png,cml,7,train", "i/2.png,aml,8,test", "i/3.png,cml,9,test"]
    manifest = build(write_table("set/a.csv", "Image,Diagnosis,Patient No,Phase", *rows))
    assert (counts(manifest), splits(manifest)) == ({"aml": 2, "cml": 2}, {"train": 2, "test": 2})
    assert manifest.subjects.count == 3
    one_hot = write_table("set/b.csv", "file,aml,cml,age", "i/0.png,1,0,30", "i/1.png,0,1,41", "i/2.png,1,0,30")
    text = refused(one_hot)
    assert "--label-column aml,cml" in text
    assert counts(build(one_hot, "--label-column", "aml,cml")) == {"aml": 2, "cml": 1}
    finding = write_table("set/c.csv", "file,finding", *(f"i/{n}.png,{'xy'[n % 2]}" for n in range(4)))
    assert "--label-column finding" in refused(finding)
    assert "not read: finding" in " ".join(build(finding, "--label-column", "none") and build.said)


@pytest.mark.parametrize("unknown", ["N/A", "NULL", "undetermined", "-", "未知"])
def test_unknown_labels_are_no_class(unknown: str, tree: Callable, build: Callable) -> None:
    tree("set", "{}.png", num=4)
    manifest = build(write_table("set/a.csv", "Path,label", "0.png,hem", f"1.png,{unknown}", "2.png,all", "3.png,all"))
    assert (manifest.classes, counts(manifest)) == (("hem", "all"), {"hem": 1, "all": 2})
    assert sorted(build.cache.table.labels.tolist()) == [-1, 0, 1, 1]


def test_label_tables_of_other_programs(tree: Callable, build: Callable) -> None:
    tree("set", "train/fold_0/all/UID_1_{}_1_all.png", "train/fold_0/hem/UID_H1_{}_1_hem.png", "phase2/{}.tiff")
    rows = ("UID_57_29_1_all;0;1.0", "UID_H49_31_1_hem;1;0.0", ";;")
    for encoding in ("utf-16", "utf-8-sig"):
        write_table("set/phase2.csv", "PATIENT_ID;New_Names;Labels", *rows, encoding=encoding)
        manifest = build("set")
        assert (counts(manifest), splits(manifest)) == ({"hem": 3, "all": 3}, {"train": 4, "valid": 2})
        assert manifest.subjects.count == 4


def test_what_runs_and_systems_leave_is_no_data(tree: Callable, build: Callable) -> None:
    leftovers = (
        "lost+found/{}.png",
        "blast/@eaDir/{}.jpg",
        "$RECYCLE.BIN/x/{}.png",
        "out/figures/{}.png",
        ".git/{}.png",
    )
    source = tree("set", "blast/{}.png", "normal/{}.png", *leftovers)
    for name in ("run.json", "history.csv"):
        (source / "out" / name).write_text("{}", encoding="utf-8")
    assert counts(build(source)) == {"blast": 2, "normal": 2}


def test_roots_of_one_name(tree: Callable, build: Callable) -> None:
    roots = [tree(f"{clinic}/cells", "aml/{}.png", "cml/{}.png") for clinic in ("north", "south", "east")]
    assert counts(build(*roots)) == {"aml": 6, "cml": 6}
    assert {record_id.split("/")[0] for record_id in build.cache.table.id_texts} == {"north", "south", "east"}


def test_frames_that_predict_the_class_are_noted_before_the_build(tree: Callable, ldata: Callable) -> None:
    tree("set", "aml/{}.png", side_px=100)
    source = tree("set", "cml/{}.png", side_px=500)
    result = ldata("build", source, "--size", 32, "--n-jobs", 1)
    assert result.exit_code == 0, result.output
    assert f"aml: {1 - (100 / 270) ** 2:.0%} of the cached square is padding" in result.stderr
    assert "19% of the frames is cut off" in result.stderr
    assert "by that alone" in result.stderr
    fitted = ldata("build", source, "--size", 32, "--n-jobs", 1, "--recipe", "fit")
    assert "padding" not in fitted.stderr
    assert "different sizes" in fitted.stderr


def test_numbers_are_names_of_their_own(tree: Callable, build: Callable) -> None:
    tree("set", "{}.png", num=4)
    table = write_table("set/a.csv", "Path,label", *(f"{n}.png,{n % 2}.0" for n in range(4)))
    assert build(table).classes == ("0", "1")
    assert build(table, "--classes", "Healthy,Blast").classes == ("Healthy", "Blast")


# --- what training may call subject-disjoint --------------------------------------------------------------------


def test_subtypes_are_no_subjects_and_training_is_not_stamped_so(
    tree: Callable, build: Callable, ldata: Callable, ltrain: Callable, error_of: Callable, json_of: Callable
) -> None:
    subtypes = [
        f"{kind}/{sub}"
        for kind, sub in zip(["sick"] * 3 + ["well"] * 3, ["T1", "T2", "B1", "young", "old", "mixed"], strict=True)
    ]
    source = tree("set", *(f"{subtype}/{{}}.png" for subtype in subtypes), num=3)
    manifest = build(source, "--class-level", 1)
    assert (manifest.subjects.count, manifest.subjects.num_unknown) == (0, 18)
    assert any("neither classes nor subjects" in line for line in build.said)
    cache = build.cache.location
    train = ("--cache", cache, "--model", "resnet18-narrow", "--epochs", 1, "--batch-size", 4, "--device", "cpu")
    train += ("--positive", "sick")
    assert "subject" in error_of(ltrain(*train, "--out", "r"), 2)
    assert "18 images of unknown subjects" in error_of(ltrain(*train, "--split", "image", "--out", "r"), 2)
    result = ltrain(*train, "--split", "image", "--allow-leak", "--out", "r")
    assert result.exit_code == 0, result.output
    assert "PATIENT-MIXED" in result.stderr
    assert "subject-disjoint" not in result.output
    results = json.loads(Path("r/test/results.json").read_text(encoding="utf-8"))
    assert results["split"]["stamp"] == "PATIENT-MIXED (18 images of unknown subjects)"
    # Subjects that an option names are taken, and the option is quoted.
    confirmed = build(source, "--class-level", 1, "--subject-from", "folder")
    assert (confirmed.subjects.count, confirmed.subjects.is_confirmed) == (6, True)
    audit = json_of(ldata("audit", build.cache.location, "--split", "subject", "--no-near", "--json"))
    (stamp,) = [check for check in audit["checks"] if check["key"] == "training_stamp"]
    assert "subject-disjoint (subjects from folders)" in stamp["text"]


def test_what_the_audit_calls_wrong_is_not_stamped_disjoint(
    tree: Callable, build: Callable, ldata: Callable, ltrain: Callable, error_of: Callable, json_of: Callable
) -> None:
    tree("set", "{}.png", num=16)
    rows = [f"{n}.png,{('x', 'y')[n % 2]},p{n if n > 1 else 0},{('train', 'valid', 'test')[n // 6]}" for n in range(16)]
    table = write_table("set/cells.csv", "path,label,subject,split", *rows)
    build(table)
    cache = build.cache
    audits = [json_of(ldata("audit", what, "--no-near", "--json")) for what in (table, cache.location)]
    verdicts = [{check["key"]: check["verdict"] for check in audit["checks"]} for audit in audits]
    assert [verdict["two_classes"] for verdict in verdicts] == ["WRONG", "WRONG"]
    codes = np.array([("train", "valid", "test").index(split.decode()) for split in cache.table.splits], np.int8)
    leaks = check_leaks(codes, cache.table, cache.manifest.subjects)
    assert (leaks.doubtful_subjects, leaks.is_disjoint) == (1, False)
    train = ("--model", "resnet18-narrow", "--device", "cpu", "--split", "given", "--positive", "y", "--out", "r")
    assert "1 subject with images of several classes" in error_of(ltrain("--cache", cache.location, *train), 2)
    build(table, "--subject-column", "subject")
    confirmed = build.cache
    assert check_leaks(codes, confirmed.table, confirmed.manifest.subjects).stamp == (
        "subject-disjoint (subjects from column subject)"
    )
    audit = json_of(ldata("audit", confirmed.location, "--no-near", "--json"))
    assert {check["key"]: check["verdict"] for check in audit["checks"]}["two_classes"] == "info"


def test_scan_prints_json_alone(tree: Callable, ldata: Callable) -> None:
    result = ldata("scan", tree("cells", "blast/{}.png", "normal/{}.png"), "--json", "--recipe", "photo")
    assert json.loads(result.stdout)["cautions"] == []


@pytest.mark.parametrize("command", ["scan", "build", "audit"])
def test_an_empty_source_is_wrong_usage(ldata: Callable, command: str) -> None:
    result = ldata(command, "")
    assert result.exit_code == 2
    assert "empty" in result.output
