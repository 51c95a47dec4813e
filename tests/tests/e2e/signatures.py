# What is wrong with the signature of a request: botocore computes it anew.
import hashlib, re

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest

WANTED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(\w+)/(\d{8})/([\w-]+)/([\w-]+)/aws4_request, "
    r"SignedHeaders=([\w;-]+), Signature=([0-9a-f]{64})"
)


STREAMING = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"


def mistake_of_chunks(body, lengths, seed, is_trailing, sign):
    """Reads a body in signed chunks, by the documentation of S3; `sign` signs a text."""
    previous, content, size = seed, b"", None
    while size != 0:
        head, _, body = body.partition(b"\r\n")
        size, _, shown = head.partition(b";chunk-signature=")
        size = int(size, 16)
        chunk, body = body[:size], body[size:]
        hashes = [hashlib.sha256(part).hexdigest() for part in (b"", chunk)]
        expected = sign("AWS4-HMAC-SHA256-PAYLOAD", [previous, *hashes])
        if shown.decode() != expected:
            return f"another signature of a chunk of {size} bytes: {head}"
        previous, content = expected, content + chunk
        if size and not body.startswith(b"\r\n"):
            return "no line end behind a chunk"
        body = body[2:] if size else body
    if is_trailing:
        field, line, body = body.split(b"\r\n", 2)
        hashed = hashlib.sha256(field + b"\n").hexdigest()
        expected = sign("AWS4-HMAC-SHA256-TRAILER", [previous, hashed])
        if line != b"x-amz-trailer-signature:" + expected.encode():
            return f"another signature of the trailer: {line}"
    if body != b"\r\n":
        return f"more than chunks: {body}"
    return None if lengths == [f"{len(content)}"] else f"{len(content)} bytes, not {lengths}"


def mistake(method, path, fields, body, credentials_of):
    """None where it is right; `credentials_of` gives those of a key's id."""
    named = lambda name: [value for key, value in fields if key.lower() == name]
    if len(named("authorization")) != 1 or len(named("x-amz-date")) != 1:
        return f"not one signature: {fields}"
    parts = WANTED.fullmatch(named("authorization")[0])
    if not parts:
        return f"no signature: {named('authorization')}"
    key, day, region, service, names, signature = parts.groups()
    credentials = credentials_of(key)
    token = credentials.token
    if named("x-amz-security-token") != ([token] if token else []):
        return "another token"
    date = named("x-amz-date")[0]
    if not date.startswith(day):
        return "another day"
    unsigned = [k for k, _ in fields if k.lower().startswith("x-amz-") and k.lower() not in names]
    if unsigned or "host" not in names.split(";"):
        return f"not signed: {unsigned}"
    content = named("x-amz-content-sha256")
    hashed = hashlib.sha256(body).hexdigest()
    in_chunks = content in ([STREAMING], [STREAMING + "-TRAILER"])
    if not in_chunks and content not in ([], [hashed]) and not (service == "s3" and content == ["UNSIGNED-PAYLOAD"]):
        return f"another body: {content}"
    if service == "s3" and not content:
        return "nothing said of the body"
    request = AWSRequest(method=method, url=f"http://{named('host')[0]}{path}", data=body)
    for name in names.split(";"):
        for value in named(name):
            request.headers[name] = value
    request.context["timestamp"] = date
    kind = S3SigV4Auth if service == "s3" else SigV4Auth
    auth = kind(credentials, service, region)
    canonical = auth.canonical_request(request)
    expected = auth.signature(auth.string_to_sign(request, canonical), request)
    if signature != expected:
        return f"another signature of\n{canonical}"
    if not in_chunks:
        return None

    def sign(kind, parts):
        return auth.signature("\n".join([kind, date, auth.credential_scope(request), *parts]), request)

    lengths = named("x-amz-decoded-content-length")
    return mistake_of_chunks(body, lengths, signature, content[0] != STREAMING, sign)
