from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from leukemia_data.building import cluster_engine as scheduler_address
from leukemia_data.building.cluster_engine import check_listening
from leukemia_data.errors import BuildError, UsageError


@pytest.mark.parametrize("form", ["{}:{}", "tcp://{}:{}", "tls://{}:{}"])
def test_a_listener_is_found(form):
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_listening(form.format(*server.getsockname()), ("tcp", "tls"))
        server.settimeout(10)
        connection, (host, _) = server.accept()
        connection.close()
    assert host == "127.0.0.1"


def test_no_listener_at_the_address_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "{}:{}".format(*server.getsockname())
    with pytest.raises(BuildError, match=f"nothing answers at address {address}"):
        check_listening(address, ("tcp",))


@pytest.mark.parametrize(
    ("said", "is_grpc"),
    [(b"\0\0\x18\4\0\0\0\0\0", True), (b"HTTP/1.1 400 Bad Request", False), (b"", False), (None, False)],
)
def test_another_protocol_than_grpc_is_an_error(said, is_grpc, monkeypatch):
    """None: a server that sends nothing first."""
    monkeypatch.setattr(scheduler_address, "CONNECT_WITHIN_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as thread:
        address = "{}:{}".format(*server.getsockname())
        checked = thread.submit(check_listening, address, ("ray",), is_grpc=True)
        with server.accept()[0] as connection:
            if said is not None:
                connection.sendall(said)
                # The other end may have closed the connection.
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
            error = checked.exception()
    assert error is None if is_grpc else isinstance(error, BuildError)


@pytest.mark.parametrize("address", ["", "head", "head:", ":8786", "head:port", "head:99999", "ray://head:1", "[::1"])
def test_what_is_no_address(address):
    with pytest.raises(UsageError, match="give HOST:PORT or tcp://HOST:PORT"):
        check_listening(address, ("tcp",))
