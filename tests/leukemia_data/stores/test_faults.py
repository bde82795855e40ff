"""Classification of the real libraries' errors."""

from __future__ import annotations

import pytest
from botocore.exceptions import EndpointConnectionError, FlexibleChecksumError, NoCredentialsError

from leukemia_data.stores.faults import is_transient


@pytest.mark.parametrize(
    ("error", "is_worth_another_attempt"),
    [
        (FlexibleChecksumError(error_msg="Expected checksum a did not match calculated checksum: b"), True),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), True),
        (NoCredentialsError(), False),
        (PermissionError("no"), False),
    ],
)
def test_errors_of_the_library_of_s3(error: Exception, is_worth_another_attempt: bool) -> None:
    assert is_transient(error) is is_worth_another_attempt
