from __future__ import annotations

import codecs
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leukemia_data.errors import RunError
from leukemia_models.judging.predictions import (
    Predictions,
    judged_samples,
    predictions_table,
    read_predictions,
    write_predictions,
    write_submission,
)

IDS = ["./new_dataset/test/0.bmp", "./new_dataset/test/1.bmp", "./new_dataset/test/2.bmp", "=1+1.bmp"]
SUBJECTS = ["1", "", "H3", "-2"]
SPLITS = ["test"] * 4


@pytest.fixture
def predictions() -> Predictions:
    probability_1 = np.array([0.25, 0.75, 0.5])
    log_probabilities = np.log(np.stack([1 - probability_1, probability_1], axis=1))
    return Predictions(np.array([3, 0, 1]), np.array([1, 0, -1]), log_probabilities)


@pytest.fixture
def table(predictions: Predictions) -> pd.DataFrame:
    return predictions_table(predictions, IDS, SUBJECTS, SPLITS)


def test_rows_are_joined_by_sample_number(table: pd.DataFrame) -> None:
    assert list(table.columns) == ["id", "subject", "label", "split", "probability_all", "prediction"]
    assert table["id"].tolist() == [IDS[3], IDS[0], IDS[1]]
    assert table["subject"].tolist() == ["-2", "1", ""]
    assert table["label"].tolist() == [1, 0, pd.NA]
    assert table["probability_all"].tolist() == pytest.approx([0.25, 0.75, 0.5])
    assert table["prediction"].tolist() == [0, 1, 0]


def test_csv_is_safe_in_a_spreadsheet(table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(path, table)
    assert path.read_bytes().decode() == (
        "id,subject,label,split,probability_all,prediction\n"
        "'=1+1.bmp,'-2,1,test,0.25,0\n"
        "./new_dataset/test/0.bmp,1,0,test,0.75,1\n"
        "./new_dataset/test/1.bmp,,,test,0.5,0\n"
    )
    assert table["id"].tolist()[0] == "=1+1.bmp"


def test_submission_keeps_ids_and_order(table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    write_submission(path, table, order=[IDS[1], IDS[3]])
    assert path.read_bytes().decode() == "ID,label\n./new_dataset/test/1.bmp,0\n=1+1.bmp,0\n"
    write_submission(path, table)
    assert path.read_text(encoding="utf-8").splitlines() == ["ID,label", f"{IDS[3]},0", f"{IDS[0]},1", f"{IDS[1]},0"]
    assert list(tmp_path.iterdir()) == [path]


def test_submission_without_a_prediction_is_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    path.write_text("old", encoding="utf-8")
    wanted = [IDS[0], *(f"{i}.bmp" for i in range(5))]
    with pytest.raises(RunError, match=r"no prediction for 0\.bmp, 1\.bmp, 2\.bmp and 2 more"):
        write_submission(path, table, order=wanted)
    assert path.read_text(encoding="utf-8") == "old"


def test_submission_repeats_repeated_rows(table: pd.DataFrame, tmp_path: Path) -> None:
    write_submission(tmp_path / "s.csv", pd.concat([table, table[:1], table]))
    lines = (tmp_path / "s.csv").read_text(encoding="utf-8").splitlines()
    assert lines[1:] == [*lines[1:4], lines[1], *lines[1:4]]
    assert len(lines) == 8


def test_submission_with_two_answers_to_one_id_is_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    other = table[:1].assign(prediction=table["prediction"].to_numpy()[1:2])
    with pytest.raises(RunError, match="same id"):
        write_submission(tmp_path / "s.csv", pd.concat([table, other]))


@pytest.mark.parametrize("nothing", ["", None, pd.NA])
def test_submission_without_an_answer_is_refused(table: pd.DataFrame, tmp_path: Path, nothing: object) -> None:
    answers = table["prediction"].astype(object)
    answers[1] = nothing
    with pytest.raises(RunError, match="no prediction"):
        write_submission(tmp_path / "s.csv", table.assign(prediction=answers))
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize("for_excel", [False, True])
def test_byte_order_mark_on_request_and_read_back(predictions: Predictions, tmp_path: Path, for_excel: bool) -> None:
    table = predictions_table(predictions, ["caf\u00e9.bmp", "b", "c", "d"], SUBJECTS, SPLITS)
    path = tmp_path / "predictions.csv"
    write_predictions(path, table, for_excel=for_excel)
    assert path.read_bytes().startswith(codecs.BOM_UTF8) == for_excel
    pd.testing.assert_frame_equal(read_predictions(path), table)


def test_names_that_are_no_utf8_survive(predictions: Predictions, tmp_path: Path) -> None:
    odd = b"caf\xe9,1.bmp".decode("utf-8", "surrogateescape")
    table = predictions_table(predictions, [odd, "b", "c", "d"], SUBJECTS, SPLITS)
    write_submission(tmp_path / "s.csv", table, order=[odd])
    assert (tmp_path / "s.csv").read_bytes() == b'ID,label\n"caf\xe9,1.bmp",1\n'


def test_loss_by_hand(predictions: Predictions) -> None:
    known = Predictions(*(values[:2] for values in vars(predictions).values()))
    assert known.loss == pytest.approx(-np.log([0.25, 0.25]).mean())


def test_written_table_is_read_back_as_it_was(predictions: Predictions, tmp_path: Path) -> None:
    odd = b"caf\xe9,1.bmp".decode("utf-8", "surrogateescape")
    ids = ["'=odd", odd, "NA", "=1+1.bmp"]
    table = predictions_table(predictions, ids, ["1", "nan", "007", "-2"], SPLITS).assign(stamp="subject-disjoint")
    write_predictions(tmp_path / "predictions.csv", table)
    found = read_predictions(tmp_path / "predictions.csv")
    pd.testing.assert_frame_equal(found, table.astype({"stamp": object}))


def test_file_without_a_stamp_is_read(table: pd.DataFrame, tmp_path: Path) -> None:
    write_predictions(tmp_path / "predictions.csv", table)
    assert "stamp" not in read_predictions(tmp_path / "predictions.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ID,label\na,1\n", "no column id, subject, split, prediction"),
        ("id,subject,label,split,prediction\n", "one column probability_<class>"),
        ("id,subject,label,split,probability_all,prediction\na,1,2,test,0.5,0\n", "row 2: label cannot be '2'"),
        ("id,subject,label,split,probability_all,prediction\na,1,1,test,x,0\n", "row 2: probability_all cannot be 'x'"),
        ("id,subject,label,split,probability_all,prediction\na,1,1,test,,0\n", "row 2: probability_all cannot be ''"),
        (
            "id,subject,label,split,probability_all,prediction\na,1,1,test,0.5,0\nb,1,1,test,1.5,0\n",
            r"row 3: probability_all is 1.5, not in \[0, 1\]",
        ),
        ("", "cannot be read as a table"),
    ],
)
def test_what_is_no_table_of_predictions_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=message):
        read_predictions(path)


def test_missing_table_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="ltrain evaluate"):
        read_predictions(tmp_path / "predictions.csv")


def test_judged_samples_are_the_labelled_rows(table: pd.DataFrame) -> None:
    samples = judged_samples(table)
    assert samples.ids == (IDS[3], IDS[0])
    assert samples.subjects == ("-2", "1")
    assert samples.labels_N.tolist() == [1, 0]
    assert samples.probabilities_N.tolist() == pytest.approx([0.25, 0.75])
