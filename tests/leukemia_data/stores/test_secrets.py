"""Messages of libraries are printed without keys, tokens and signed queries."""

from __future__ import annotations

import pytest

from leukemia_data.stores.faults import without_secrets


@pytest.mark.parametrize(
    "text",
    [
        "GET https://b.s3.amazonaws.com/k?X-Amz-Credential=AK/2026&X-Amz-Signature=WORD-1234: 400",
        "cannot reach https://user:WORD-1234@host/x",
        "aws_secret_access_key=WORD-1234 is wrong",
        '{"AccountKey": "WORD-1234"}',
        "token: WORD-1234",
        "the key WORD-1234 is not known",
    ],
)
def test_no_secret_is_left(text):
    shown = without_secrets(text, {"AWS_SECRET_ACCESS_KEY": "WORD-1234"})
    assert "WORD-1234" not in shown
    assert "***" in shown


def test_other_texts_and_variables_are_left_alone():
    text = "s3://bucket/train/cell.bmp: Access Denied (what?)"
    assert without_secrets(text, {"HOME": "/train", "AWS_PROFILE": "bucket", "AWS_SESSION_TOKEN": "cell"}) == text
