from __future__ import annotations

import codecs
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leukemia_data.errors import RunError
from leukemia_models.evaluation.classification import classification_metrics
from leukemia_models.evaluation.predictions import (
    Predictions,
    evaluated_samples,
    predictions_table,
    read_predictions,
    write_submission,
    write_table,
)

IDS = ["./new_dataset/test/0.bmp", "./new_dataset/test/1.bmp", "./new_dataset/test/2.bmp", "=1+1.bmp"]
SUBJECTS = ["1", "", "H3", "-2"]
SPLITS = ["test"] * 4
CLASSES = ("hem", "all")


HEADER = "id,subject,label,split,prediction,probability_hem,probability_all\n"


@pytest.fixture
def predictions() -> Predictions:
    probability_1 = np.array([0.25, 0.75, 0.5])
    log_probabilities = np.log(np.stack([1 - probability_1, probability_1], axis=1))
    return Predictions(np.array([3, 0, 1]), np.array([1, 0, -1]), log_probabilities)


@pytest.fixture
def table(predictions: Predictions) -> pd.DataFrame:
    return predictions_table(predictions, IDS, SUBJECTS, SPLITS)


def test_rows_are_joined_by_sample_number(table: pd.DataFrame) -> None:
    assert list(table.columns) == [
        "id",
        "subject",
        "label",
        "split",
        "prediction",
        "probability_hem",
        "probability_all",
    ]
    assert table["id"].tolist() == [IDS[3], IDS[0], IDS[1]]
    assert table["subject"].tolist() == ["-2", "1", ""]
    assert table["label"].tolist() == ["all", "hem", ""]
    assert table["probability_all"].tolist() == pytest.approx([0.25, 0.75, 0.5])
    assert table["probability_hem"].tolist() == pytest.approx([0.75, 0.25, 0.5])
    assert table["prediction"].tolist() == ["hem", "all", "hem"]


def test_csv_is_safe_in_a_spreadsheet(table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_table(path, table)
    assert path.read_bytes().decode() == (
        "id,subject,label,split,prediction,probability_hem,probability_all\n"
        "'=1+1.bmp,'-2,all,test,hem,0.75,0.25\n"
        "./new_dataset/test/0.bmp,1,hem,test,all,0.25,0.75\n"
        "./new_dataset/test/1.bmp,,,test,hem,0.5,0.5\n"
    )
    assert table["id"].tolist()[0] == "=1+1.bmp"


def test_submission_keeps_ids_and_order(table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    write_submission(path, table, "all", order=[IDS[1], IDS[3]])
    assert path.read_bytes().decode() == "ID,label\n./new_dataset/test/1.bmp,0\n=1+1.bmp,0\n"
    write_submission(path, table, "all")
    assert path.read_text(encoding="utf-8").splitlines() == ["ID,label", f"{IDS[3]},0", f"{IDS[0]},1", f"{IDS[1]},0"]
    assert list(tmp_path.iterdir()) == [path]


def test_submission_without_a_prediction_is_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    path.write_text("old", encoding="utf-8")
    wanted = [IDS[0], *(f"{i}.bmp" for i in range(5))]
    with pytest.raises(RunError, match=r"no prediction for 0\.bmp, 1\.bmp, 2\.bmp \(and 2 more\)"):
        write_submission(path, table, "all", order=wanted)
    assert path.read_text(encoding="utf-8") == "old"


def test_submission_repeats_repeated_rows(table: pd.DataFrame, tmp_path: Path) -> None:
    write_submission(tmp_path / "s.csv", pd.concat([table, table[:1], table]), "all")
    lines = (tmp_path / "s.csv").read_text(encoding="utf-8").splitlines()
    assert lines[1:] == [*lines[1:4], lines[1], *lines[1:4]]
    assert len(lines) == 8


def test_submission_with_two_answers_to_one_id_is_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    other = table[:1].assign(prediction=table["prediction"].to_numpy()[1:2])
    with pytest.raises(RunError, match="same id"):
        write_submission(tmp_path / "s.csv", pd.concat([table, other]), "all")


@pytest.mark.parametrize("nothing", ["", None, pd.NA])
def test_submission_without_an_answer_is_refused(table: pd.DataFrame, tmp_path: Path, nothing: object) -> None:
    answers = table["prediction"].astype(object)
    answers[1] = nothing
    with pytest.raises(RunError, match="no prediction"):
        write_submission(tmp_path / "s.csv", table.assign(prediction=answers), "all")
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize("for_excel", [False, True])
def test_byte_order_mark_on_request_and_read_back(predictions: Predictions, tmp_path: Path, for_excel: bool) -> None:
    table = predictions_table(predictions, ["caf\u00e9.bmp", "b", "c", "d"], SUBJECTS, SPLITS)
    path = tmp_path / "predictions.csv"
    write_table(path, table, for_excel=for_excel)
    assert path.read_bytes().startswith(codecs.BOM_UTF8) == for_excel
    pd.testing.assert_frame_equal(read_predictions(path, CLASSES), table)


def test_names_that_are_no_utf8_survive(predictions: Predictions, tmp_path: Path) -> None:
    odd = b"caf\xe9,1.bmp".decode("utf-8", "surrogateescape")
    table = predictions_table(predictions, [odd, "b", "c", "d"], SUBJECTS, SPLITS)
    write_submission(tmp_path / "s.csv", table, "all", order=[odd])
    assert (tmp_path / "s.csv").read_bytes() == b'ID,label\n"caf\xe9,1.bmp",1\n'


def test_loss_by_hand(predictions: Predictions) -> None:
    known = Predictions(*(values[:2] for values in vars(predictions).values()))
    assert known.loss == pytest.approx(-np.log([0.25, 0.25]).mean())


def test_written_table_is_read_back_as_it_was(predictions: Predictions, tmp_path: Path) -> None:
    odd = b"caf\xe9,1.bmp".decode("utf-8", "surrogateescape")
    ids = ["'=odd", odd, "NA", "=1+1.bmp"]
    table = predictions_table(predictions, ids, ["1", "nan", "007", "-2"], SPLITS).assign(stamp="subject-disjoint")
    write_table(tmp_path / "predictions.csv", table)
    found = read_predictions(tmp_path / "predictions.csv", CLASSES)
    pd.testing.assert_frame_equal(found, table.astype({"stamp": object}))


def test_file_without_a_stamp_is_read(table: pd.DataFrame, tmp_path: Path) -> None:
    write_table(tmp_path / "predictions.csv", table)
    assert "stamp" not in read_predictions(tmp_path / "predictions.csv", CLASSES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ID,label\na,1\n", "no column id, subject, split, prediction"),
        ("id,subject,label,split,prediction\n", "probabilities of no class, and not of hem, all"),
        ("id,subject,label,split,probability_all,prediction\na,1,2,test,0.5,0\n", "row 2: label cannot be '2'"),
        ("id,subject,label,split,probability_all,prediction\na,1,1,test,x,0\n", "row 2: probability_all cannot be 'x'"),
        ("id,subject,label,split,probability_all,prediction\na,1,1,test,,0\n", "row 2: probability_all cannot be ''"),
        (
            "id,subject,label,split,probability_all,prediction\na,1,1,test,0.5,0\nb,1,1,test,1.5,0\n",
            r"row 3: probability_all is 1.5, not in \[0, 1\]",
        ),
        (HEADER + "a,1,1,test,hem,0.5,0.5\n", "row 2: label cannot be '1': it is one of all, hem"),
        (HEADER + "a,1,all,test,,0.5,0.5\n", "row 2: prediction cannot be ''"),
        (HEADER + "a,1,all,test,hem,0.5,0.5\na,1,all,test,hem,0.5,0.6\n", r"row 3: probabilities sum to 1\.1"),
        (HEADER.replace("hem", "aml") + "a,1,all,test,aml,0.5,0.5\n", "probabilities of aml, all, and not of hem, all"),
        ("", "cannot be read as a table"),
    ],
)
def test_what_is_no_table_of_predictions_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=message):
        read_predictions(path, CLASSES)


def test_missing_table_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="ltrain evaluate"):
        read_predictions(tmp_path / "predictions.csv", CLASSES)


def test_evaluated_samples_are_the_labelled_rows(table: pd.DataFrame) -> None:
    samples = evaluated_samples(table, CLASSES)
    assert samples.ids == (IDS[3], IDS[0])
    assert samples.subjects == ("-2", "1")
    assert samples.labels_N.tolist() == [1, 0]
    assert samples.probabilities_N.tolist() == pytest.approx([0.25, 0.75])


# --- which class is which -------------------------------------------------------------------------------------


def test_the_positive_class_may_be_the_first(predictions: Predictions, tmp_path: Path) -> None:
    classes = ("Blast", "Healthy")
    table = predictions_table(predictions, IDS, SUBJECTS, SPLITS, classes, positive="Blast")
    # A tie is no positive answer, whichever class is the positive one.
    assert table["prediction"].tolist() == ["Blast", "Healthy", "Healthy"]
    samples = evaluated_samples(table, ("Healthy", "Blast"))
    assert samples.labels_N.tolist() == [0, 1]
    assert samples.probabilities_N.tolist() == pytest.approx([0.75, 0.25])
    write_submission(tmp_path / "s.csv", table, "Blast")
    assert [line[-1] for line in (tmp_path / "s.csv").read_text(encoding="utf-8").splitlines()[1:]] == ["1", "0", "0"]


def test_a_table_of_other_classes_is_refused_by_name(table: pd.DataFrame) -> None:
    with pytest.raises(RunError, match="probabilities of hem, all, and not of Blast, Healthy"):
        evaluated_samples(table, ("Blast", "Healthy"))
    with pytest.raises(RunError, match="labels aml; classes are hem, all"):
        evaluated_samples(table.replace({"label": {"all": "aml"}}), CLASSES)


def test_classes_and_labels_may_look_like_anything(predictions: Predictions, tmp_path: Path) -> None:
    for classes in (("0", "1"), ("1", "0"), ("NA", "=a"), ("-1", "1"), ("a,b", "'c")):
        table = predictions_table(predictions, IDS, SUBJECTS, SPLITS, classes)
        write_table(tmp_path / "p.csv", table)
        pd.testing.assert_frame_equal(read_predictions(tmp_path / "p.csv", classes[::-1]), table)


def first_version_of(table: pd.DataFrame, classes: tuple[str, str]) -> str:
    """The table as version 0.1 wrote it: classes as 0 and 1, and the probability of class 1 alone."""
    number_of = {"": "", classes[0]: "0", classes[1]: "1"}
    rows = [
        f"{row.id},{row.subject},{number_of[row.label]},{row.split},{share:.9g},{number_of[row.prediction]},some stamp"
        for row, share in zip(table.itertuples(), table[f"probability_{classes[1]}"], strict=True)
    ]
    return "\n".join([f"id,subject,label,split,probability_{classes[1]},prediction,stamp", *rows, ""])


@pytest.mark.parametrize("classes", [("hem", "all"), ("Blast", "Healthy"), ("0", "1")])
def test_files_of_version_0_1_are_read_in_the_new_coding(classes: tuple[str, str], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shares = rng.random(60)
    labels = rng.integers(0, 2, 60)
    found = Predictions(np.arange(60), labels, np.log(np.stack([1 - shares, shares], axis=1)))
    table = predictions_table(found, [f"{n}.png" for n in range(60)], ["1"] * 60, ["test"] * 60, classes)
    (tmp_path / "old.csv").write_text(first_version_of(table, classes), encoding="utf-8")
    write_table(tmp_path / "new.csv", table)
    old, new = (read_predictions(tmp_path / name, classes) for name in ("old.csv", "new.csv"))
    assert list(old.columns) == [*new.columns, "stamp"]
    assert old["label"].tolist() == new["label"].tolist() == [classes[label] for label in labels]
    assert old["prediction"].tolist() == new["prediction"].tolist()
    # To the last digit what version 0.1 read and evaluated.
    (of_old, of_new) = (evaluated_samples(each, classes) for each in (old, new))
    np.testing.assert_array_equal(of_old.labels_N, labels)
    np.testing.assert_array_equal(of_old.probabilities_N, [float(f"{share:.9g}") for share in np.exp(np.log(shares))])
    np.testing.assert_array_equal(of_new.probabilities_N, of_old.probabilities_N)
    one, other = (classification_metrics(each.labels_N, each.probabilities_NK, classes) for each in (of_old, of_new))
    assert one == other


def test_a_file_of_version_0_1_of_other_classes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text("id,subject,label,split,probability_Healthy,prediction\na,1,1,test,0.5,0\n", encoding="utf-8")
    for classes in (("hem", "all"), ("Healthy", "Blast")):
        with pytest.raises(RunError, match="probabilities of Healthy, and not of"):
            read_predictions(path, classes)


def test_another_order_of_the_classes_is_the_same_prediction(predictions: Predictions) -> None:
    assert predictions.in_order(CLASSES, CLASSES) is predictions
    turned = predictions.in_order(CLASSES, CLASSES[::-1])
    assert turned.labels_N.tolist() == [0, 1, -1]
    np.testing.assert_array_equal(turned.log_probabilities_NK, predictions.log_probabilities_NK[:, ::-1])
