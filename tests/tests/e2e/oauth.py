# A server that gives tokens, over TLS, as scripted: it writes each request that it got
# as a line of JSON, and answers as the file `answer` says at that time.
import base64, http.server, json, ssl, sys, urllib.parse

directory, mode = sys.argv[1], sys.argv[2]
count = 0


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        global count
        body = self.rfile.read(int(self.headers["Content-Length"]))
        is_form = self.headers["Content-Type"] == "application/x-www-form-urlencoded"
        pairs = urllib.parse.parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=True, encoding="latin-1"
        ) if is_form else []
        said = {"path": self.path, "form": dict(pairs), "authorization": self.headers["Authorization"]}
        if not is_form:
            said["json"] = json.loads(body)
        if (said["authorization"] or "").startswith("Basic "):
            pair = base64.b64decode(said["authorization"][6:], validate=True).decode("ascii")
            name, secret = pair.split(":")
            said["basic"] = [urllib.parse.unquote_plus(it, encoding="latin-1") for it in (name, secret)]
        peer = self.connection.getpeercert() if mode != "plain" else None
        said["peer"] = dict(it[0] for it in peer["subject"]) if peer else None
        with open(f"{directory}/requests", "a") as requests:
            requests.write(json.dumps(said) + "\n")
        answer = json.load(open(f"{directory}/answer"))
        status = answer.get("status", 200)
        if status == 200:
            count += 1
        text = json.dumps(answer["body"]).replace("COUNT", str(count)).encode()
        self.send_response(status)
        for name, value in answer.get("fields", {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


class Listener(http.server.ThreadingHTTPServer):
    # Who is refused by a client, or refuses one, is no fault of a test.
    def handle_error(self, *_):
        pass


server = Listener(("127.0.0.1", 0), Server)
if mode != "plain":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{directory}/server.pem", f"{directory}/server.key")
    if mode == "mtls":
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(f"{directory}/ca.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1], flush=True)
server.serve_forever()
