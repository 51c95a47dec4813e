"""What a process can do that has the user and the descriptors of the proxy.

Arguments: its pid, that of its helper, the port of a listener, a file of root.
Says a line for each thing that it tried: what, and whether it was `kept` from it.
"""
import ctypes
import errno
import json
import os
import socket
import stat
import struct
import sys

PIDFD_GETFD = 438
PTRACE_SEIZE = 0x4206
libc = ctypes.CDLL(None, use_errno=True)
proxy, helper, port = (int(word) for word in sys.argv[1:4])
secret = sys.argv[4]


def call(function, *arguments):
    result = function(*arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def taken(pid):
    """Every descriptor of a process."""
    pidfd = os.pidfd_open(pid)
    return [
        call(libc.syscall, PIDFD_GETFD, pidfd, int(fd), 0)
        for fd in os.listdir("/proc/%d/fd" % pid)
    ]


def identity(pid):
    fields = dict(
        line.split(":\t", 1) for line in open("/proc/%d/status" % pid) if ":\t" in line
    )
    return int(fields["Uid"].split()[0]), int(fields["Gid"].split()[0])


descriptors = taken(proxy)
uid, gid = identity(proxy)
os.setgroups([])
os.setresgid(gid, gid, gid)
os.setresuid(uid, uid, uid)
print("user", "other" if uid else "root")


def tried(what, attempt, wanted=(errno.EPERM, errno.EACCES)):
    try:
        attempt()
        print(what, "DONE")
    except OSError as error:
        print(what, "kept" if error.errno in wanted else error)


def append(path):
    with open(path, "a") as file:
        file.write("x")


def join(address, v6):
    taker = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET)
    taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    taker.bind(address)
    taker.listen()


tried("read", lambda: open(secret).read())
tried("write", lambda: append(secret))
tried("create", lambda: append(os.path.dirname(secret) + "/new"))
tried("replace", lambda: os.unlink(secret))
tried("become-root", lambda: os.setresuid(0, 0, 0))
tried("change-user-of-a-file", lambda: os.chown(secret, uid, gid))
for name, pid in [("proxy", proxy), ("helper", helper), ("init", 1)]:
    tried("trace-" + name, lambda: call(libc.ptrace, PTRACE_SEIZE, pid, 0, 0))
    tried("memory-" + name, lambda: open("/proc/%d/mem" % pid, "rb"))
    tried("environment-" + name, lambda: open("/proc/%d/environ" % pid).read())
    tried("descriptors-" + name, lambda: taken(pid))
for name, pid in [("helper", helper), ("init", 1)]:
    tried("signal-" + name, lambda: os.kill(pid, 9))
tried("low-port", lambda: join(("127.0.0.1", 1), False))
tried("raw-socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 6))
tried("namespace", lambda: call(libc.setns, os.open("/proc/self/ns/net", 0), 0))
tried("mount", lambda: call(libc.mount, b"none", b"/mnt", b"tmpfs", 0, None))

shared, channel = 0, None
for fd in descriptors:
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        continue
    known = socket.socket(fileno=os.dup(fd))
    if known.family == socket.AF_UNIX and known.type == socket.SOCK_SEQPACKET:
        channel = known
    listens = known.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if listens and known.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
        shared += 1
        v6 = known.family == socket.AF_INET6
        tried("join", lambda: join(known.getsockname(), v6), [errno.EADDRINUSE])
print("shared-listeners", shared)
tried("join-a-listener", lambda: join(("127.0.0.1", port), False), [errno.EADDRINUSE])


def ask(request):
    """The helper's answer; its protocol may have a number around it."""
    for question in [request, {"number": 1 << 40, "request": request}]:
        channel.settimeout(5)
        channel.send(json.dumps(question).encode())
        answer, fds, _, _ = socket.recv_fds(channel, 1 << 17, 64)
        if b"Failed" not in answer:
            return answer, fds
    raise PermissionError(errno.EPERM, "refused")


print("channel", "there" if channel else "missing")
tried("have-a-file-opened-later", lambda: ask({"RememberFile": [secret, "Read"]}))
tried("have-another-file-opened", lambda: ask({"OpenFile": 1000}))
