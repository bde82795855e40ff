from __future__ import annotations

import socket

import pytest

from leukemia_data.engines.scheduler_address import check_listening
from leukemia_data.errors import BuildError, UsageError


@pytest.mark.parametrize("form", ["{}:{}", "tcp://{}:{}", "tls://{}:{}"])
def test_somebody_listens(form):
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_listening(form.format(*server.getsockname()), ("tcp", "tls"))


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "{}:{}".format(*server.getsockname())
    with pytest.raises(BuildError, match=f"nothing answers at --address {address}"):
        check_listening(address, ("tcp",))


@pytest.mark.parametrize("address", ["", "head", "head:", ":8786", "head:port", "head:99999", "ray://head:1", "[::1"])
def test_what_is_no_address(address):
    with pytest.raises(UsageError, match="give HOST:PORT or tcp://HOST:PORT"):
        check_listening(address, ("tcp",))
