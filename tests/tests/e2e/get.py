"""One GET, connected in the way that the first argument names.

Prints the address that the socket says it talks to, then the body.
"""

import asyncio
import errno
import http.client
import select
import socket
import sys

mode, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
authority = f"[{host}]" if ":" in host else host
request = f"GET /{mode} HTTP/1.1\r\nHost: {authority}:{port}\r\nConnection: close\r\n\r\n".encode()
family = socket.AF_INET6 if ":" in host else socket.AF_INET
MPTCP, TCP_FASTOPEN_CONNECT = 262, 30


def finish(sock):
    sock.setblocking(True)
    sock.settimeout(20)
    peer = sock.getpeername()
    answer = b""
    while block := sock.recv(65536):
        answer += block
    report(peer, answer.split(b"\r\n\r\n", 1)[1])


def report(peer, body):
    print(f"{peer[0]} {peer[1]}")
    print(body.decode())


def fresh(protocol=0):
    return socket.socket(family, socket.SOCK_STREAM, protocol)


def plain(sock):
    sock.settimeout(20)
    sock.connect((host, port))
    sock.sendall(request)
    finish(sock)


if mode == "blocking":
    plain(fresh())
elif mode == "nonblocking":
    sock = fresh()
    sock.setblocking(False)
    code = sock.connect_ex((host, port))
    assert code in (0, errno.EINPROGRESS), errno.errorcode[code]
    assert select.select([], [sock], [], 20)[1]
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    sock.sendall(request)
    finish(sock)
elif mode == "asyncio":

    async def ask():
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), 20)
        report(writer.get_extra_info("peername"), answer.split(b"\r\n\r\n", 1)[1])

    asyncio.run(ask())
elif mode == "http.client":
    connection = http.client.HTTPConnection(host, port, timeout=20)
    connection.request("GET", "/" + mode)
    peer = connection.sock.getpeername()
    report(peer, connection.getresponse().read())
elif mode == "fastopen-sendto":
    sock = fresh()
    sock.sendto(request, socket.MSG_FASTOPEN, (host, port))
    finish(sock)
elif mode == "fastopen-connect":
    sock = fresh()
    sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    plain(sock)
elif mode == "mptcp":
    plain(fresh(MPTCP))
elif mode == "bound":
    sock = fresh()
    sock.bind((sys.argv[4], 0))
    plain(sock)
elif mode == "reconnect":
    # A connect to AF_UNSPEC dissolves; the socket is then connected again.
    import ctypes

    sock = fresh()
    sock.settimeout(20)
    sock.connect((host, port))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.connect(sock.fileno(), (ctypes.c_char * 16)(), 16) == 0, ctypes.get_errno()
    plain(sock)
else:
    sys.exit(f"no mode {mode}")
