from __future__ import annotations

import pytest
import torch
from torch import Tensor

from leukemia_data.errors import RunError
from leukemia_models.devices.precision import compiled_forward

from ..fakes import copied_state, fake_source, same_state, tiny_network
from ..small_training import Recorder, train, without_times


def test_compiled_training_is_the_same_and_so_are_its_names() -> None:
    """The backend ``eager`` traces and guards, and computes bit for bit as without compilation."""
    plain, compiled = tiny_network(), tiny_network()
    expected = train(plain, fake_source(6, 6, 4), fake_source(5))
    recorder = Recorder(compiled)
    found = train(compiled, fake_source(6, 6, 4), fake_source(5), observer=recorder, compile=True)
    assert copied_state(compiled).keys() == copied_state(plain).keys()
    assert without_times(found) == without_times(expected)
    assert same_state(recorder.weights[-1], copied_state(plain))


def test_modes_are_those_of_the_network() -> None:
    model = tiny_network()
    forward = compiled_forward(model, "eager")
    images = torch.randn(4, 3, 8, 8)
    for training in (True, False):
        model.train(training)
        torch.testing.assert_close(forward(images), model(images))


def test_the_error_of_a_machine_that_cannot_compile_says_what_to_do() -> None:
    with pytest.raises(RunError, match=r"cannot be compiled on this machine: .*nothing-like-it.*C\+\+ compiler"):
        compiled_forward(tiny_network(), "nothing-like-it")

    def broken(graph: object, inputs: object) -> None:
        raise OSError("no compiler found")

    forward = compiled_forward(tiny_network(), broken)  # type: ignore[arg-type]
    with pytest.raises(RunError, match=r"no compiler found.*train without"):
        forward(torch.randn(4, 3, 8, 8))


def test_errors_of_the_network_stay_what_they_are() -> None:
    class Fussy(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise ValueError("not these")

    with pytest.raises(ValueError, match="not these"):
        compiled_forward(Fussy(), "eager")(torch.randn(4, 3, 8, 8))
