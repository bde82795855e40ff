"""Stands for a forked interpreter where a program is started: ``forked_client.py SOCKET ARGUMENTS``.

It sends its arguments, folder, environment and standard streams to :mod:`tests.forked_python`, which forks an
interpreter that has everything loaded; passes signals on to it; and ends as it ends. If this process is killed, so is
the other one with all that it has started. It imports built-in modules only, to start in 15 ms.
"""

import _signal
import _socket
import marshal
import os
import sys
from array import array

SIGNALS = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGUSR1, _signal.SIGUSR2)


def main(address: str, arguments: list[str]) -> None:
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    server.connect(address)
    for number in SIGNALS:
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, lambda number, frame: server.send(bytes([number])))
    ignored = [int(number) for number in SIGNALS if _signal.getsignal(number) == _signal.SIG_IGN]
    request = marshal.dumps((arguments, os.getcwd(), dict(os.environ), ignored))  # noqa: PTH109 - quick
    streams = array("i", [0, 1, 2]).tobytes()
    server.sendmsg([len(request).to_bytes(8, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
    server.sendall(request)
    answer = b""
    while len(answer) < 4 and (part := server.recv(4 - len(answer))):
        answer += part
    code = int.from_bytes(answer, "big", signed=True) if len(answer) == 4 else 70
    if code < 0:
        if -code in SIGNALS:
            _signal.signal(-code, _signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


main(sys.argv[1], sys.argv[2:])
