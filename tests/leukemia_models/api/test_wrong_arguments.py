"""Wrong arguments raise an error of one line that names them, before any work. docs/api.md has right ones."""

from __future__ import annotations

import pytest

import leukemia_data as ld
import leukemia_models as lm


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: lm.train("cache", epoch=3), r"unknown setting 'epoch' \(did you mean 'epochs'\?\)"),
        (lambda: lm.train("cache", model="resnet19"), "did you mean 'resnet18'"),
        (lambda: lm.train("cache", epochs="x"), "epochs must be a whole number"),
        (lambda: lm.train("cache", plan="nosuch"), "unknown plan 'nosuch'"),
        (lambda: lm.train("cache", plan="report-a-resnet50", epochs=3, lr=0.1), "epochs, lr: the plan decides that"),
        (lambda: lm.train("cache", verbose="loud"), "verbose must be"),
        (lambda: lm.cross_validate("cache", batchsize=3), "did you mean 'batch_size'"),
        (lambda: lm.open_run("nosuch"), "nosuch does not exist"),
        (lambda: lm.open_run(None), "path must be a path"),
        (lambda: lm.compare("nosuch"), "two runs"),
    ],
)
def test_wrong_arguments(use, words):
    with pytest.raises(ld.UsageError, match=words) as caught:
        use()
    assert len(str(caught.value).splitlines()) == 1


def test_no_cache_is_an_error_of_one_line(tmp_path):
    with pytest.raises(ld.LeukemiaError, match="no cache of 96 px at"):
        lm.train(tmp_path / "nosuch", size=96)
