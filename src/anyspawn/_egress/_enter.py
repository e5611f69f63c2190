"""Run by itself (``python -I -S _enter.py PID PORT FD``): open a listening socket in the network
namespace of another process, and send it back.

The network namespace of a sandbox belongs to a user namespace, which must be entered first. The
kernel allows that only to a process without threads: hence a separate program. It imports only
built-in modules, because it starts for each call.
"""

import _socket
import array
import ctypes
import fcntl
import os
import sys

__all__: list[str] = []

_NS_GET_USERNS = 0xB701
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_IP_FREEBIND = 15
_BACKLOG = 128


def _enter(fd: int, kind: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, kind):
        raise OSError(ctypes.get_errno(), "setns")


def main(pid: str, port: str, channel: str) -> None:
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    ours = os.stat("/proc/self/ns/net")
    theirs = os.fstat(network)
    if (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino):
        raise OSError(f"process {pid} shares the network of this one")
    owner = fcntl.ioctl(network, _NS_GET_USERNS)
    theirs, ours = os.fstat(owner), os.stat("/proc/self/ns/user")
    if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
        _enter(owner, _CLONE_NEWUSER)
    _enter(network, _CLONE_NEWNET)
    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    # The loopback interface is not always up yet.
    listener.setsockopt(_socket.IPPROTO_IP, _IP_FREEBIND, 1)
    listener.bind(("127.0.0.1", int(port)))
    listener.listen(_BACKLOG)
    to = _socket.socket(fileno=int(channel))
    rights = array.array("i", [listener.fileno()])
    to.sendmsg([b"."], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as exc:
        sys.exit(str(exc))
