# CONNECT over HTTP/2 to a proxy, by h2:
#   tunnel_http2.py tls PORT AUTHORITY     a TLS session through it, to a server that echoes
#   tunnel_http2.py http PORT AUTHORITY    two requests through it, whose answers it prints
import ssl, sys

from http2_streams import Shared, Stream, reach

port, authority = int(sys.argv[2]), sys.argv[3]
tunnel = Shared(reach(port), True).open(Stream, [(":method", "CONNECT"), (":authority", authority)])
assert tunnel.head == {":status": "200"}, tunnel.head

if sys.argv[1] == "tls":
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(received, to_send, server_hostname=authority.split(":")[0])

    def run(step, *arguments):
        while True:
            try:
                return step(*arguments)
            except ssl.SSLWantReadError:
                tunnel.write(to_send.read())
                received.write(tunnel.read())
            finally:
                tunnel.write(to_send.read())

    run(session.do_handshake)
    message = b"0123456789abcdef" * 20_000
    run(session.write, message)
    heard = b""
    while len(heard) < len(message):
        heard += run(session.read, 65536)
    assert heard == message
    print(session.version())
else:
    for path in ("/a", "/b"):
        tunnel.write(f"GET {path} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.endswith(b"."):
            answer += tunnel.read()
        print(answer.split(b"\r\n\r\n")[1].decode())
    tunnel.finish()
    assert tunnel.read() is None
