#!/usr/bin/env python3
"""TLS beside nginx: CPU of a request from HTTP/1 to mutual TLS, handshakes, memory.

    benches/tls.py AMBASSADOR AMBASSADOR_LOAD [ROUNDS]

Needs nginx and openssl. Everything is on loopback, one thread each. What is compared
alternates, so that ratios hold on a machine that others use too; times do not.
"""

import json
import os
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

AMBASSADOR, LOAD = (os.path.abspath(path) for path in sys.argv[1:3])
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 6
BODY = 1024
IDLE = 1000

NGINX = """
daemon off; master_process off; user root; pid {dir}/{name}.pid; error_log {dir}/{name}.err;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  {http}
}}
"""


def sh(command, **more):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)


def certificates(dir):
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    sh(["openssl", "req", "-x509", *key, "-days", "2", "-subj", "/CN=authority", "-keyout", f"{dir}/ca.key", "-out", f"{dir}/ca.pem"])
    for name, names in (("server", "DNS:web.test"), ("client", "URI:spiffe://test/client")):
        sh(["openssl", "req", *key, "-subj", f"/CN={name}", "-keyout", f"{dir}/{name}.key", "-out", f"{dir}/{name}.csr"])
        with open(f"{dir}/{name}.ext", "w") as file:
            file.write(f"subjectAltName={names}\n")
        sh(["openssl", "x509", "-req", "-in", f"{dir}/{name}.csr", "-CA", f"{dir}/ca.pem", "-CAkey", f"{dir}/ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{dir}/{name}.ext", "-out", f"{dir}/{name}.pem"])


PORTS = iter(range(20000 + os.getpid() % 8000, 32000))


def free():
    for port in PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise SystemExit("no free port")


class Processes(list):
    def start(self, *command):
        self.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return self[-1].pid

    def nginx(self, dir, name, http):
        with open(f"{dir}/{name}.conf", "w") as file:
            file.write(NGINX.format(dir=dir, name=name, http=http))
        return self.start("nginx", "-c", f"{dir}/{name}.conf")

    def ambassador(self, dir, name, text):
        with open(f"{dir}/{name}.yaml", "w") as file:
            file.write(text)
        return self.start(AMBASSADOR, "run", "--config", f"{dir}/{name}.yaml")

    def end(self):
        for process in self:
            process.terminate()
        for process in self:
            process.wait()


def cpu_us(pid):
    tasks = os.listdir(f"/proc/{pid}/task")
    return sum(int(open(f"/proc/{pid}/task/{task}/schedstat").read().split()[0]) for task in tasks) / 1e3


def pss_kib(pid):
    lines = open(f"/proc/{pid}/smaps_rollup")
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def wait_for(*ports):
    for port in ports:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)


LOADS = {"64 connections, closed loop": ["64", "--closed"], "4,000 a second": ["16", "--rate", "4000"]}


def load(port, seconds, how):
    command = [LOAD, "run", "--to", f"127.0.0.1:{port}", "--host", "web.test", "--size", str(BODY)]
    command += ["--seconds", str(seconds), "--connections", *LOADS[how]]
    result = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    if not result["requests"] or result["errors_total"]:
        raise SystemExit(f"the load has failed: {result}")
    return result


def requests(dir):
    """CPU of a request from HTTP/1 to mutual TLS, and memory."""
    for version in ("TLSv1.2", "TLSv1.3"):
        processes = Processes()
        try:
            up, by_nginx, by_us, admin = (free() for _ in range(4))
            server = f"ssl_certificate {dir}/server.pem; ssl_certificate_key {dir}/server.key; ssl_protocols {version}; ssl_client_certificate {dir}/ca.pem; ssl_verify_client on;"
            processes.nginx(dir, "up", f'server {{ listen 127.0.0.1:{up} ssl; {server} location / {{ return 200 "{"x" * BODY}"; }} }}')
            client = f"proxy_ssl_certificate {dir}/client.pem; proxy_ssl_certificate_key {dir}/client.key; proxy_ssl_trusted_certificate {dir}/ca.pem; proxy_ssl_verify on; proxy_ssl_name web.test; proxy_ssl_server_name on; proxy_ssl_protocols {version};"
            nginx = processes.nginx(dir, "proxy", f'upstream web {{ server 127.0.0.1:{up}; keepalive 64; }} server {{ listen 127.0.0.1:{by_nginx}; location / {{ proxy_pass https://web; proxy_http_version 1.1; proxy_set_header Connection ""; {client} }} }}')
            ambassador = processes.ambassador(dir, "ambassador", f"workers: 1\nadmin: {{ listen: 127.0.0.1:{admin} }}\nlisteners: [{{ name: http, bind: 127.0.0.1:{by_us} }}]\nupstreams: {{ web: {{ hosts: [web.test], endpoints: [127.0.0.1:{up}], tls: {{ ca: ca.pem, cert: client.pem, key: client.key }}, pool: {{ max_idle: 100 }} }} }}\n")
            wait_for(up, by_nginx, by_us, admin)
            time.sleep(0.5)
            print(f"{version}: idle PSS: ambassador {pss_kib(ambassador)} KiB, nginx {pss_kib(nginx)} KiB")
            sides = [("ambassador", ambassador, by_us), ("nginx", nginx, by_nginx)]
            for how in LOADS:
                figures = {"ambassador": [], "nginx": []}
                for round in range(ROUNDS):
                    for name, pid, port in sides if round % 2 else reversed(sides):
                        load(port, 1, how)
                        before = cpu_us(pid)
                        count = load(port, 3, how)["requests"]
                        figures[name].append((cpu_us(pid) - before) / count)
                ours, theirs = (statistics.median(figures[name]) for name in ("ambassador", "nginx"))
                print(f"{version}, {how}: CPU of a request: ambassador {ours:.2f} us, nginx {theirs:.2f} us, ratio {ours / theirs:.3f}")
        finally:
            processes.end()


def connections(dir):
    """Memory of idle TLS connections, and CPU of handshakes."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    processes = Processes()
    try:
        up, by_nginx, by_us, admin = (free() for _ in range(4))
        processes.start(LOAD, "serve", "--listen", f"127.0.0.1:{up}")
        server = f"ssl_certificate {dir}/server.pem; ssl_certificate_key {dir}/server.key; ssl_protocols TLSv1.2 TLSv1.3;"
        nginx = processes.nginx(dir, "front", f'server {{ listen 127.0.0.1:{by_nginx} ssl; {server} location / {{ proxy_pass http://127.0.0.1:{up}; }} }}')
        ambassador = processes.ambassador(dir, "front", f"workers: 1\nadmin: {{ listen: 127.0.0.1:{admin} }}\nlisteners: [{{ name: tls, bind: 127.0.0.1:{by_us}, tls: {{ cert: server.pem, key: server.key }} }}]\nupstreams: {{ web: {{ hosts: [web.test], endpoints: [127.0.0.1:{up}] }} }}\n")
        wait_for(up, by_nginx, by_us, admin)
        context = ssl.create_default_context(cafile=f"{dir}/ca.pem")

        def connect(port):
            plain = socket.create_connection(("127.0.0.1", port))
            secured = context.wrap_socket(plain, server_hostname="web.test")
            secured.sendall(b"GET /16 HTTP/1.1\r\nHost: web.test\r\n\r\n")
            secured.recv(4096)
            return secured

        for name, pid, port in (("ambassador", ambassador, by_us), ("nginx", nginx, by_nginx)):
            held = [connect(port) for _ in range(50)]
            before, spent = pss_kib(pid), cpu_us(pid)
            held += [connect(port) for _ in range(IDLE)]
            spent = (cpu_us(pid) - spent) / IDLE
            time.sleep(1)
            each = (pss_kib(pid) - before) * 1024 / IDLE
            print(f"{name}: {each:.0f} bytes for an idle TLS connection, {spent:.0f} us of CPU for a handshake with one request")
            for one in held:
                one.close()
    finally:
        processes.end()


def main():
    dir = tempfile.mkdtemp()
    try:
        os.chmod(dir, 0o755)
        certificates(dir)
        requests(dir)
        connections(dir)
    finally:
        shutil.rmtree(dir)


main()
