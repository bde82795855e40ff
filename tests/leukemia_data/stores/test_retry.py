"""Retries: number, waits, and errors that are retried."""

from __future__ import annotations

import pytest

from leukemia_data.stores.faults import Retry


def failing(*errors: Exception):
    """A request that raises these one after the other, then succeeds."""
    left = list(errors)

    def request() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return request


def test_waits_double_up_to_their_bound():
    retry = Retry(first_s=1.0, max_s=5.0, draw=lambda: 1.0)
    assert [retry.wait_s(attempt) for attempt in (1, 2, 3, 4, 5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert Retry(first_s=1.0, draw=lambda: 0.0).wait_s(2) == 1.0


def test_a_request_is_made_until_it_succeeds():
    waits: list[float] = []
    retry = Retry(num_attempts=3, first_s=1.0, sleep=waits.append, draw=lambda: 1.0)
    assert retry.run(failing(TimeoutError(), ConnectionResetError())) == "done"
    assert waits == [1.0, 2.0]


def test_attempts_are_bounded():
    waits: list[float] = []
    with pytest.raises(TimeoutError, match="third"):
        Retry(num_attempts=3, sleep=waits.append).run(failing(TimeoutError(), TimeoutError(), TimeoutError("third")))
    assert len(waits) == 2


@pytest.mark.parametrize(
    "error", [PermissionError("no"), FileNotFoundError("no"), ValueError("no"), KeyboardInterrupt()]
)
def test_permanent_errors_are_raised_at_once(error):
    waits: list[float] = []
    with pytest.raises(type(error)):
        Retry(sleep=waits.append).run(failing(error))
    assert waits == []
