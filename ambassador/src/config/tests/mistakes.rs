//! What is said of what is wrong, and of what is perhaps not meant.

use super::*;

#[test]
fn every_mistake_is_reported_at_once_with_line_path_and_value() {
    let text = "\
wrokers: 2
workers: none
admin: { listen: 0.0.0.0:15000 }
drain_timeout: 30
capture:
  cgroups: [relative, { netns: /proc/1/ns/net }]
  mode: epbf
  include: { ports: [0, 80], cidrs: [10.1.2.3/8] }
listeners:
  - { name: a, bind: localhost:80 }
  - { name: b, bind: 127.0.0.1:81, protocol: tcp }
  - { name: b, bind: 127.0.0.1:81, upstream: nobody }
upstreams:
  pay/ments:
    endpoints: [10.1.2.3:0, api:80]
  two:
    hosts: [a.example, 10.0.0.0/8, \"a.*\"]
    pool: { max_idle: 1, min_idle: 2, max_conections: 5 }
  three:
    hosts: [A.example., 10.0.0.0/8]
    tls: { verify: fully, sni: \"-\" }
    tla: on
routes:
  - match: { path_prefix: v1, methods: [get] }
    upstream: tow
telemetry: { access_log: { sample: 101% } }
";
    let expected = "\
f:1: wrokers: unknown key, did you mean workers?
f:2: workers: must be auto or a number from 1 to 1024, got none
f:3: admin.listen: must be on loopback or a unix socket; off loopback it needs token_file (for health and metrics alone use metrics_listen), got 0.0.0.0:15000
f:4: drain_timeout: must be a whole number and a unit (ms, s, m, h, d), as 250ms or 10s, got 30
f:6: capture.cgroups[0]: must be a path from the root, got relative
f:6: capture.cgroups[1]: must have a path
f:7: capture.mode: must be one of ebpf, iptables; did you mean ebpf?, got epbf
f:8: capture.include.ports[0]: must be a port from 1 to 65535, got 0
f:8: capture.include.cidrs[0]: has bits set beyond its prefix, did you mean 10.0.0.0/8?, got 10.1.2.3/8
f:10: listeners[0].bind: must be an IP address and port, as 127.0.0.1:8081, or unix:/path, got localhost:80
f:10: listeners[0]: must have a bind address
f:11: listeners[1]: a tcp listener must have an upstream
f:12: listeners[2].upstream: an http listener routes each request; this is for protocol tcp, got nobody
f:12: listeners[2].name: is the name of another listener, got b
f:12: listeners[2].bind: is bound twice, listener b has 127.0.0.1:81, got 127.0.0.1:81
f:14: upstreams.pay/ments: a name has 1 to 63 letters, digits, '.', '_' or '-', got pay/ments
f:15: upstreams.pay/ments.endpoints[0]: must have a port from 1 to 65535, got 10.1.2.3:0
f:15: upstreams.pay/ments.endpoints[1]: must be an IP address and port, as 10.1.2.3:8443 (for a name use dns), got api:80
f:17: upstreams.two.hosts[2]: a wildcard stands for the first labels, as *.pay.svc, got a.*
f:18: upstreams.two.pool.max_conections: unknown key, did you mean max_connections?
f:18: upstreams.two.pool.min_idle: min_idle 2 is over max_idle 1, got 2
f:18: upstreams.two.pool.min_idle: needs endpoints or dns: there is nothing to dial ahead of a request, got 2
f:20: upstreams.three.hosts[0]: is claimed twice, by two as well, got A.example.
f:20: upstreams.three.hosts[1]: is claimed twice, by two as well, got 10.0.0.0/8
f:21: upstreams.three.tls.verify: must be full, ca, off, or a SPIFFE ID as spiffe://td/path, got fully
f:21: upstreams.three.tls.sni: must be a host name: labels of letters, digits and hyphens, got -
f:22: upstreams.three.tla: unknown key, did you mean tls?
f:24: routes[0].match.path_prefix: must start with a slash, got v1
f:24: routes[0].match.methods[0]: methods have case, did you mean GET?, got get
f:25: routes[0].upstream: no such upstream, did you mean two?, got tow
f:26: telemetry.access_log.sample: must be a percentage from 0% to 100%, got 101%";
    let found = mistakes(text);
    let expected: Vec<&str> = expected.lines().collect();
    assert_eq!(found, expected);
}

/// A file, its lines parted by `\n`, and what is said of it.
const WRONG: &str = r#"
a: [ => is not YAML
--- {}\n--- {} => second YAML document
[1] => must be a mapping, got a list
workers: 1\nworkers: 2 => f:2: workers: is written twice, first on line 1
workers: => f:1: workers: must be one value, got nothing
workers: 0 => got 0
max_connections: 0 => must be at least 1, or none
memory_limit: 4MiB => is too little to start with: the proxy needs 12544KiB, got 4MiB
workers: 64\nmemory_limit: 24MiB => the proxy needs 28MiB, got 24MiB
memory_limit: lots => must be a whole number and a unit (B, KiB, MiB, GiB), as 64KiB, or auto or none
user: 998 => uid:gid as 998:998, got 998
user: "998:" => must be auto, the name
user: 4294967295:1 => must be auto, the name
user: ../root => must be auto, the name
drain_timeout: 400d => must be at most 365d
drain_timeout: -1s => must be a whole number
listeners: {} => must be a list, got a mapping
admin: { listen: 127.0.0.1:1, metrics_listen: 0.0.0.0:1 } => bound twice
admin: { listen: unix:admin.sock } => path from the root
admin: { listen: unix:/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx } => at most 107 bytes
upstreams: { a: { endpoints: [10.1.1.1:80] } }\nlisteners: [{ name: l, bind: 127.0.0.1:15000 }] => admin.listen has 127.0.0.1:15000
upstreams: { a: { endpoints: [10.1.1.1:80] } }\nlisteners: [{ name: l, bind: 127.0.0.1:1, protocol: tcp, upstream: b }] => no such upstream, got b
upstreams: { a: { hosts: [10.1.1.1] } }\nlisteners: [{ name: l, bind: 127.0.0.1:1, protocol: tcp, upstream: a }] => no original destination
upstreams: { a: { endpoints: [10.1.1.1:1], protocol: http1 } }\nlisteners: [{ name: l, bind: 127.0.0.1:1, protocol: tcp, upstream: a }] => speaks HTTP
upstreams: { a: { endpoints: [10.1.1.1:1], protocol: grpc } }\nlisteners: [{ name: l, bind: 127.0.0.1:1, protocol: tcp, upstream: a }] => speaks HTTP
upstreams: { a: { endpoints: [] } } => at least one endpoint
upstreams: { a: { endpoints: [10.1.1.1:1, 10.1.1.1:1] } } => endpoints[1]: is listed twice
upstreams: { a: { endpoints: [0.0.0.0:1] } } => must be the address of one host
upstreams: { a: { endpoints: [10.1.1.1:1], dns: a.b:1 } } => not both
upstreams: { a: { endpoints: [{ address: 10.1.1.1:1, wieght: 2 }] } } => endpoints[0].wieght: unknown key, did you mean weight?
upstreams: { a: { endpoints: [{ address: 10.1.1.1:1, weight: 0 }] } } => endpoints[0].weight: must be from 1 to 65535, got 0
upstreams: { a: { endpoints: [{ address: 10.1.1.1:1, weight: 65536 }] } } => endpoints[0].weight: must be from 1 to 65535
upstreams: { a: { endpoints: [{ address: 10.1.1.1:1, zone: '' }] } } => endpoints[0].zone: must be the name of a zone
upstreams: { a: { endpoints: [10.1.1.1:1, { address: 10.1.1.1:1, weight: 2 }] } } => is listed twice
upstreams: { a: { endpoints: [{ }] } } => must have an address
upstreams: { a: { dns: a.example } } => host name and port
upstreams: { a: { dns: 10.1.1.1:80 } } => addresses stand under endpoints
upstreams: { a: { hosts: [10.1.2] } } => whole IP address
upstreams: { a: { hosts: ['*.10.1.1.1'] } } => CIDR
upstreams: { a: { hosts: ['a.example:0'] } } => port
upstreams: { a: { hosts: ['10.0.0.0/33'] } } => must be an IP address or CIDR
upstreams: { a: { hosts: [a.example, A.EXAMPLE] } } => hosts[1]: is listed twice
upstreams: { a: { hosts: ['10.0.0.0/8:0'] } } => port
upstreams: { a: { protocol: http3 } } => must be one of auto, http1, http2, grpc, tcp; did you mean http1?
upstreams: { a: { protocol: tcp, http2: { max_streams: 7 } } } => upstreams.a.http2: protocol tcp has no requests
upstreams: { a: { http2: { ping: 999ms } } } => http2.ping: must be at least 1s
upstreams: { a: { http2: { ping: 25h } } } => http2.ping: must be at most 1d
upstreams: { a: { http2: { max_streams: 0 } } } => http2.max_streams: must be at least 1
upstreams: { a: { http2: { window: 65535 } } } => http2.window: must be at least 64KiB
upstreams: { a: { http2: { connection_window: 2GiB } } } => http2.connection_window: must be at most 2147483647B
upstreams: { a: { http2: { window: 5MiB } } } => http2.window: window 5MiB is over connection_window 4MiB
upstreams: { a: { http2: { connection_window: 64KiB } } } => http2.connection_window: window 1MiB is over connection_window 64KiB
defaults: { http2: { window: 3MiB } }\nupstreams: { a: { http2: { connection_window: 2MiB } } } => upstreams.a.http2.connection_window: window 3MiB is over connection_window 2MiB
upstreams: { a: { protocol: tcp, headers: { remove: [x] } } } => protocol tcp has no headers
upstreams: { a: { dns: 'b:1', pool: { min_idle: 30, max_connections: 20 } } } => over max_connections 20
upstreams: { a: { headers: { set: { Host: x } } } } => proxy itself answers for
upstreams: { a: { headers: { remove: [Transfer-Encoding] } } } => proxy itself answers for
upstreams: { a: { headers: { set: { 'a b': x } } } } => is no header name
upstreams: { a: { headers: { set: { a: "x\ry" } } } } => control characters, got ***
upstreams: { a: { headers: { set: { a: ' x' } } } } => starts nor ends
upstreams: { a: { headers: { set: { a: x, A: y } } } } => set twice
upstreams: { a: { headers: { set: { a: x }, remove: [A] } } } => set and removed
upstreams: { adopted: {} } => taken by the metrics
upstreams: { a: { endpoints: [127.0.0.1:1], auth: {} } } => must say what the credential is
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { bearer: {} } } } => auth.bearer: must have a file, exec or spiffe
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { bearer: { file: ghp_16C7e42F292c6912E7710c838347Ae178B4a } } } } => must name a file, and looks like a secret; a file is ./NAME, got ***
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { bearer: { file: /t }, basic: { user: u, password: { file: /p } } } } } => auth.basic: is the second kind of credential here
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { basic: { user: 'a:b', password: { file: /p } } } } } => auth.basic.user: a user has no colon and no control characters, got ***
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { basic: { password: { file: /p } } } } } => auth.basic: must have a user
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { basic: { user: u } } } } => auth.basic: must have a password
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { basic: { user: u, password: {} } } } } => auth.basic.password: must have a file
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { basic: { user: u, password: s3cret } } } } => must be a mapping, got ***
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { header: { value: { file: /k } } } } } => auth.header: must have a name
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { header: { name: x-key } } } } => auth.header: must have a value
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { header: { name: Transfer-Encoding, value: { file: /k } } } } } => auth.header.name: is a header that the proxy itself answers for
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { header: { name: traceparent, value: { file: /k } } } } } => auth.header.name: is a header that the proxy itself answers for
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { header: { name: 'a b', value: { file: /k } } } } } => auth.header.name: is no header name
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { bearer: { file: /t, exec: [echo] } } } } => auth.bearer.exec: a token has file or exec, not both
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { bearer: { file: /t, ttl: 1m } } } } => auth.bearer.ttl: is that of exec
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { bearer: { exec: [] } } } } => auth.bearer.exec: must be a program and its arguments
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { beerer: {} } } } => did you mean bearer?
upstreams: { a: { hosts: [a.example], auth: { bearer: { file: /t } } } } => needs endpoints or dns, or tls with verify: full
upstreams: { a: { dns: 'localhost:1', auth: { bearer: { file: /t } } } } => needs tls with verify: full, or endpoints on loopback
upstreams: { a: { hosts: [10.1.1.1], tls: on, auth: { bearer: { file: /t } } } } => and an sni or hosts that are names
upstreams: { a: { hosts: [a.example], tls: { verify: ca }, auth: { bearer: { file: /t } } } } => needs endpoints or dns, or tls with verify: full
upstreams: { a: { dns: 'a.example:1', tls: { verify: ca }, auth: { bearer: { file: /t } } } } => needs tls with verify: full
upstreams: { a: { hosts: [a.example], tls: on, auth: { bearer: { file: /t } } } }\nroutes: [{ match: { path_prefix: /a }, upstream: a }] => routes[0]: match must have a host
upstreams: { a: { endpoints: [127.0.0.1:1, 10.1.1.1:1], auth: { bearer: { file: /t } } } } => needs tls with verify: full, or endpoints on loopback
upstreams: { a: { endpoints: [127.0.0.1:1], protocol: tcp, auth: { bearer: { file: /t } } } } => protocol tcp has no requests
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { identity: { issuer: a, audience: b } } } } => auth.identity: must have a key
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { identity: { key: /k, audience: b } } } } => auth.identity: must have an issuer
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { identity: { key: /k, issuer: a, audience: '' } } } } => auth.identity: must have an audience
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { identity: { key: /k, issuer: a, audience: b, algorithm: RS256 } } } } => must be one of EdDSA, ES256
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { identity: { key: /k, issuer: a, audience: b, ttl: 9s } } } } => must be 10s at least
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { identity: { key: /k, issuer: a, audience: b }, bearer: { file: /t } } } } => auth.identity: is the second kind of credential here
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { oauth2: { client_id: c, client_secret: { file: /s } } } } } => auth.oauth2: must have a token_url
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { oauth2: { token_url: 'https://a.example/t', client_secret: { file: /s } } } } } => auth.oauth2: must have a client_id
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { oauth2: { token_url: 'http://a.example/t', client_id: c, client_secret: { file: /s } } } } } => must begin with https://: plain http would show secrets
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { oauth2: { token_url: 'https://u:p4ss@a.example/t', client_id: c, client_secret: { file: /s } } } } } => must not hold a user or a password, got ***
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { oauth2: { token_url: 'https://a.example/t', client_id: c } } } } => auth.oauth2: must have client_secret, private_key, or tls with cert and key
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { oauth2: { token_url: 'https://a.example/t', client_id: c, client_auth: secret_post } } } } => auth.oauth2: must have a client_secret
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { oauth2: { token_url: 'https://a.example/t', client_id: c, client_auth: private_key_jwt, private_key: {} } } } } => auth.oauth2.private_key: must have a file
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { oauth2: { token_url: 'https://a.example/t', client_id: c, client_secret: { file: /s }, private_key: { file: /k } } } } } => auth.oauth2.private_key: does nothing with this client_auth
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { oauth2: { token_url: 'https://a.example/t', client_id: c, client_secret: { file: /s }, scopes: ['a b'] } } } } => a scope is one word
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { oauth2: { token_url: 'https://a.example/t', client_id: c, tls: { cert: /c } } } } } => auth.oauth2.tls: must have cert and key, or neither
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { token_exchange: { grant: rfc8693, subject: kubernetes } } } } => auth.token_exchange: must have a url
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { token_exchange: { url: 'https://a.example/t', subject: kubernetes } } } } => auth.token_exchange: must have a grant
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { token_exchange: { url: 'https://a.example/t', grant: rfc8693 } } } } => auth.token_exchange: must have a subject
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { token_exchange: { url: 'https://a.example/t', grant: rfc8693, subject: spiffe } } } } => needs identity.spiffe, which gives JWT-SVIDs
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { bearer: { spiffe: x } } } } => needs identity.spiffe, which gives JWT-SVIDs
{ identity: { spiffe: 'unix:/a' }, upstreams: { a: { endpoints: [127.0.0.1:1], auth: { bearer: { spiffe: x, file: /a } } } } } => must not be there with spiffe
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { token_exchange: { grant: gcp, subject: kubernetes } } } } => auth.token_exchange: must have an audience
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { token_exchange: { grant: gcp, subject: kubernetes, audience: a, impersonate: 'a@b/x' } } } } => must be an e-mail address or a URL
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { token_exchange: { grant: azure, subject: kubernetes, tenant: t, audience: a } } } } => auth.token_exchange: must have a client_id
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { token_exchange: { grant: azure, subject: kubernetes, tenant: t, client_id: c } } } } => auth.token_exchange: must have scopes or an audience
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { token_exchange: { grant: azure, subject: kubernetes, tenant: 'a/b', client_id: c, audience: a } } } } => must be the name or the id of a tenant
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { token_exchange: { grant: gcp, subject: kubernetes, audience: a, tenant: t } } } } => auth.token_exchange.tenant: does nothing with this grant
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { token_exchange: { grant: aws_web_identity, subject: { file: t }, service: s3, region: r } } } } => auth.token_exchange: must have a role
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { token_exchange: { grant: aws_web_identity, subject: { file: t }, role: 'arn:aws:iam::1:role/r', region: r } } } } => auth.token_exchange: must have a service
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { token_exchange: { grant: aws_web_identity, subject: { file: t }, role: 'arn:aws:iam::1:role/r', service: s3 } } } } => auth.token_exchange: must have a region
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { token_exchange: { grant: aws_web_identity, subject: { file: t }, role: r, service: s3, region: r } } } } => auth.token_exchange.role: must be an ARN
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { token_exchange: { grant: aws_web_identity, subject: { file: t }, role: 'arn:aws:iam::1:role/r', service: s3, region: r, session: 'a b' } } } } => auth.token_exchange.session: has 2 to 64 letters
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { token_exchange: { grant: aws_web_identity, subject: { file: t }, role: 'arn:aws:iam::1:role/r', service: s3, region: r, audience: x } } } } => auth.token_exchange.audience: is for subject: spiffe alone
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { token_exchange: { grant: aws_web_identity, subject: { file: t }, role: 'arn:aws:iam::1:role/r', service: s3, region: r, scopes: [x] } } } } => auth.token_exchange.scopes: does nothing with this grant
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { token_exchange: { grant: gcp, subject: kubernetes, audience: a, role: r } } } } => auth.token_exchange.role: does nothing with this grant
{ upstreams: { a: { endpoints: [127.0.0.1:1] }, b: { endpoints: [10.1.1.1:1] }, c: { hosts: [c.example], tls: on }, d: { endpoints: [127.0.0.1:1], protocol: tcp } }, placeholders: { stripe: { value: { file: /s } } } } => placeholders.stripe: must have an upstream
{ upstreams: { a: { endpoints: [127.0.0.1:1] }, b: { endpoints: [10.1.1.1:1] }, c: { hosts: [c.example], tls: on }, d: { endpoints: [127.0.0.1:1], protocol: tcp } }, placeholders: { stripe: { upstream: a } } } => placeholders.stripe: must have a value
{ upstreams: { a: { endpoints: [127.0.0.1:1] }, b: { endpoints: [10.1.1.1:1] }, c: { hosts: [c.example], tls: on }, d: { endpoints: [127.0.0.1:1], protocol: tcp } }, placeholders: { stripe: { value: {}, upstream: a } } } => placeholders.stripe.value: must have a file
{ upstreams: { a: { endpoints: [127.0.0.1:1] }, b: { endpoints: [10.1.1.1:1] }, c: { hosts: [c.example], tls: on }, d: { endpoints: [127.0.0.1:1], protocol: tcp } }, placeholders: { stripe: { value: s3cret, upstream: a } } } => must be a mapping, got ***
{ upstreams: { a: { endpoints: [127.0.0.1:1] }, b: { endpoints: [10.1.1.1:1] }, c: { hosts: [c.example], tls: on }, d: { endpoints: [127.0.0.1:1], protocol: tcp } }, placeholders: { stripe: { value: { file: /s }, upstream: aa } } } => placeholders.stripe.upstream: no such upstream
{ upstreams: { a: { endpoints: [127.0.0.1:1] }, b: { endpoints: [10.1.1.1:1] }, c: { hosts: [c.example], tls: on }, d: { endpoints: [127.0.0.1:1], protocol: tcp } }, placeholders: { stripe: { value: { file: /s }, upstream: b } } } => placeholders.stripe.upstream: needs tls with verify: full, or endpoints on loopback
{ upstreams: { a: { endpoints: [127.0.0.1:1] }, b: { endpoints: [10.1.1.1:1] }, c: { hosts: [c.example], tls: on }, d: { endpoints: [127.0.0.1:1], protocol: tcp } }, placeholders: { stripe: { value: { file: /s }, upstream: d } } } => placeholders.stripe.upstream: protocol tcp has no requests
{ upstreams: { a: { endpoints: [127.0.0.1:1] }, b: { endpoints: [10.1.1.1:1] }, c: { hosts: [c.example], tls: on }, d: { endpoints: [127.0.0.1:1], protocol: tcp } }, placeholders: { stripe: { value: { file: /s }, upstream: a, in: [query] } } } => placeholders.stripe.in[0]: must be one of header
{ upstreams: { a: { endpoints: [127.0.0.1:1] }, b: { endpoints: [10.1.1.1:1] }, c: { hosts: [c.example], tls: on }, d: { endpoints: [127.0.0.1:1], protocol: tcp } }, placeholders: { stripe: { value: { file: /s }, upstream: a, in: [] } } } => placeholders.stripe.in: must say where it is looked for, as [header]
{ upstreams: { a: { endpoints: [127.0.0.1:1] }, b: { endpoints: [10.1.1.1:1] }, c: { hosts: [c.example], tls: on }, d: { endpoints: [127.0.0.1:1], protocol: tcp } }, placeholders: { 'a b': { value: { file: /s }, upstream: a } } } => a name has 1 to 63 letters
{ upstreams: { a: { endpoints: [127.0.0.1:1] }, b: { endpoints: [10.1.1.1:1] }, c: { hosts: [c.example], tls: on }, d: { endpoints: [127.0.0.1:1], protocol: tcp } }, placeholders: { stripe: { value: { file: /s }, upstream: c, to: a } } } => placeholders.stripe.to: unknown key
{ upstreams: { c: { hosts: [c.example], tls: on } }, placeholders: { s: { value: { file: /s }, upstream: c } }, routes: [{ match: { path_prefix: /a }, upstream: c }] } => routes[0]: match must have a host
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { sigv4: { region: r, credentials: env } } } } => auth.sigv4: must have a service
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { sigv4: { service: s3, credentials: env } } } } => auth.sigv4: must have a region
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { sigv4: { service: s3, region: 'eu/west', credentials: env } } } } => has small letters, digits and hyphens alone
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { sigv4: { service: s3, region: r } } } } => auth.sigv4: must have credentials
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { sigv4: { service: s3, region: r, credentials: {} } } } } => auth.sigv4.credentials: must have a file
upstreams: { a: { endpoints: [127.0.0.1:1], auth: { sigv4: { service: s3, region: r, credentials: imds } } } } => must be one of env, web_identity, container
defaults: { auth: { bearer: { file: /t } } } => defaults.auth: unknown key
upstreams: { '..': {} } => dots alone
upstreams: { a: { protocol: tcp, endpoints: [10.1.1.1:1] } }\nroutes: [{ upstream: a }] => this upstream is protocol tcp
routes: [{}] => must have an upstream
capture: { cgroups: [/a, { path: /a }] } => captured twice
capture: { include: { cidrs: [10.1.0.0/16] }, exclude: { cidrs: [10.0.0.0/8] } } => excluded as a whole
capture: { include: { ports: [80] }, exclude: { ports: [80] } } => included and excluded
telemetry: { access_log: { path: log.json } } => path from the root
telemetry: { access_log: { format: text } } => must be one of json, logfmt; or { template: "..." }
telemetry: { access_log: { format: {} } } => format: must have a template
telemetry: { access_log: { format: { template: "{statsu}" } } } => format.template: names a field that no line has; did you mean {status}?
telemetry: { access_log: { format: { template: "{status" } } } => braces in pairs
telemetry: { access_log: { keep: [faild] } } => must be one of failed, retried; did you mean failed?; or { slow: 500ms }
telemetry: { access_log: { keep: [failed, failed] } } => keep[1]: is listed twice
telemetry: { access_log: { keep: [slow: 1s, slow: 2s] } } => keep[1]: must say how slow once
telemetry: { access_log: { keep: [{}] } } => keep[0]: must say how slow once
telemetry: { access_log: { keep: [slow: 0s] } } => keep[0].slow: must be longer than zero
"#;

#[test]
fn one_mistake_each() {
    for line in WRONG.trim().lines() {
        let (text, wanted) = line.split_once(" => ").unwrap();
        let text = text.replace("\\n", "\n");
        let found = mistakes(&text);
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        assert!(found[0].contains(wanted), "{text}\n{}", found[0]);
    }
}

#[test]
fn what_is_perhaps_not_meant_is_warned_about() {
    for (text, wanted) in [
        (
            "capture: { unmatched: passthrough }\nupstreams: { a: { hosts: ['*.b.example'] } }",
            "2: upstreams.a.hosts[0]: under unmatched: passthrough",
        ),
        (
            "capture: { exclude: { cidrs: [10.0.0.0/8] } }\nupstreams: { a: { hosts: [10.1.1.1] } }",
            "never captured",
        ),
        (
            "capture: { include: { ports: [80] } }\nupstreams: { a: { hosts: ['b:81'] } }",
            "include.ports does not have its port",
        ),
        (
            "capture: { include: { cidrs: [11.0.0.0/8] } }\nupstreams: { a: { hosts: [10.1.1.1] } }",
            "include.cidrs does not have it",
        ),
        (
            "capture: {}\nupstreams: { a: { hosts: [127.0.0.1] } }",
            "loopback is out of scope",
        ),
        (
            "upstreams: { a: { endpoints: [10.1.1.1:1] } }",
            "nothing leads here",
        ),
        (
            "upstreams: { a: { hosts: [b], load_balancing: random } }",
            "upstreams.a.load_balancing: does nothing without endpoints or dns",
        ),
        (
            "upstreams: { a: { hosts: [b], zone: c } }",
            "upstreams.a.zone: does nothing without",
        ),
        (
            "upstreams: { a: { hosts: [b], outlier: { interval: 1s } } }",
            "upstreams.a.outlier: does nothing without",
        ),
        (
            "listeners: [{ name: a, bind: 0.0.0.0:80 }]",
            "open to other machines",
        ),
        (
            "listeners: [{ name: a, bind: 127.0.0.1:80 }]\nupstreams: { a: { endpoints: [127.0.0.1:80] } }",
            "which is a loop",
        ),
        (
            "upstreams: { a: { hosts: [b] } }\nroutes: [{ upstream: a }, { match: { host: b }, upstream: a }]",
            "routes[1]: is never reached",
        ),
        (
            "upstreams: { a: { hosts: [b], protocol: tcp } }",
            "never reads",
        ),
    ] {
        let found = warnings(text);
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        assert!(found[0].contains(wanted), "{text}\n{}", found[0]);
    }
}

/// A key and its value, and what is said of it.
const WRONG_POLICIES: &str = "\
pool.max_requests: 0 => must be at least 1
pool.max_requests: none => must be a whole number from 1 to 4294967295
timeouts.first_byte: 0s => must be longer than zero, or none
timeouts.per_try: 0ms => must be longer than zero, or none
timeouts.request: 0s => must be longer than zero, or none
timeouts.request: off => as 250ms or 10s, or none
timeouts.connect: none => as 250ms or 10s
timeouts.tunnel: 0s => must be longer than zero
timeouts.tunnel: none => as 250ms or 10s
timeouts.head: 0s => must be longer than zero
timeouts.min_rate: 0 => must be a size per second, as 1KiB, below 4GiB, or off
timeouts.min_rate: none => must be a size per second, as 1KiB, below 4GiB, or off
timeouts.min_rate: 1KB => must be a size per second, as 1KiB, below 4GiB, or off
timeouts.min_rate: 4GiB => must be a size per second, as 1KiB, below 4GiB, or off
timeouts.min_rate: 1KiB/m => must be a size per second, as 1KiB, below 4GiB, or off
tcp_keepalive: 0s => must be whole seconds, from 1s to 9h, or off
tcp_keepalive: 1500ms => must be whole seconds, from 1s to 9h, or off
tcp_keepalive: 10h => must be whole seconds, from 1s to 9h, or off
tcp_keepalive: none => as 250ms or 10s, or off
max_hops: 0 => must be at least 1, or off
retry.attempts: 0 => must be from 1 to 100
retry.attempts: 101 => must be from 1 to 100
retry.attempts: 65537 => must be from 1 to 100
retry.attempts: many => must be a whole number from 1 to 100
retry.on: reset => must be a list
retry.on[0]: [timeout] => a status from 100 to 599, or a range of them, as 500-599
retry.on[0]: [99] => a status from 100 to 599, or a range of them, as 500-599
retry.on[0]: [600] => a status from 100 to 599, or a range of them, as 500-599
retry.on[0]: [500-600] => a status from 100 to 599, or a range of them, as 500-599
retry.on[0]: [503-500] => a status from 100 to 599, or a range of them, as 500-599
retry.on[0]: [5xx] => a status from 100 to 599, or a range of them, as 500-599
retry.on[1]: [reset, reset] => is listed twice
retry.on[1]: [500-599, 503] => is listed twice
retry.on[0].grpc[0]: [{ grpc: [unavailible] }] => did you mean unavailable?
retry.on[1]: [{ grpc: [unknown] }, { grpc: [unknown] }] => must name codes that are not listed yet
retry.on[0]: [{ grpc: [] }] => must name codes that are not listed yet
retry.on[0].http: [{ http: [503] }] => unknown key
retry.methods[0]: [post] => did you mean POST?
retry.methods[0]: ['A B'] => is no request method
retry.methods[1]: [GET, GET] => is listed twice
retry.idempotency_header: a b => is no header name
retry.idempotency_header: Host => proxy itself answers for
retry.base: 0s => must be longer than zero
retry.base: 31s => base is over cap
retry.cap: 99ms => base is over cap
retry.budget.ratio: 0.2 => must be a percentage
retry.budget.ratio: 101% => must be a percentage
retry.budget.min_per_second: -1 => must be a whole number from 0 to 4294967295
retry.budget.max: 1 => unknown key
retry.body_limit: 17MiB => must be at most 16MiB
retry.body_limit: 64kb => as 64KiB
retry.body_limit: 1.5MiB => as 64KiB
retry.body_limit: KiB => as 64KiB
retry.body_limit: 99999999999GiB => must be fewer bytes
retry.honor_retry_after: yes => must be true or false
circuit_breaker.failures: 0 => must be from 1 to 10000, or off
circuit_breaker.failures: 10001 => must be from 1 to 10000, or off
circuit_breaker.ratio: 0% => must be a percentage from 0.0001% to 100%, or off
circuit_breaker.ratio: 0.5 => must be a percentage from 0.0001% to 100%, or off
circuit_breaker.window: 0s => must be longer than zero
circuit_breaker.sleep: 0s => must be longer than zero
circuit_breaker.consecutive: 0 => must be at least 1, or off
circuit_breaker.failure_statuses[0]: [reset] => a status from 100 to 599, or a range of them, as 500-599
circuit_breaker.failure_statuses[1]: [500, 500] => is listed twice
circuit_breaker.failure_statuses[0].grpc[0]: [{ grpc: [UNKNOWN] }] => must be one of ok, cancelled, unknown,
circuit_breaker.kernel_fail_fast: yes => must be one of off, on
rate_limit: on => must be off or a mapping
rate_limit: { burst: 5 } => must have requests_per_second
rate_limit: {} => must have requests_per_second
rate_limit.requests_per_second: 0 => must be a number from 0.001 to 1000000000
rate_limit.requests_per_second: 1e3 => must be a number from 0.001 to 1000000000
rate_limit.requests_per_second: 1000000001 => must be a number from 0.001 to 1000000000
rate_limit.requests_per_second: '.' => must be a number from 0.001 to 1000000000
rate_limit.requests_per_second: -1 => must be a number from 0.001 to 1000000000
load_balancing: round-robin => must be one of round_robin, least_request, peak_ewma, random
load_balancing: {} => must be a word, or have ring_hash
load_balancing.ring_hash: {} => must have a header or a source, and not both
load_balancing.ring_hash: { header: a, source: ip } => must have a header or a source, and not both
load_balancing.ring_hash.header: a b => is no header name
load_balancing.ring_hash.source: port => must be one of ip
zone: '' => must be the name of a zone
outlier.consecutive: 0 => must be at least 1, or off
outlier.success_rate: 90% => must be one of off, on
outlier.interval: 0s => must be longer than zero
outlier.base_ejection: 0s => must be longer than zero
outlier.max_ejected: 101% => must be a percentage
outlier.max_ejection: 10% => unknown key
concurrency.adaptive: true => must be one of off, on, got true
concurrency.min: 0 => must be at least 1
concurrency.max: 0 => must be at least 1
concurrency.min: 1025 => min 1025 is over max 1024
concurrency.max: 3 => min 4 is over max 3
concurrency.start: 1 => unknown key
";

#[test]
fn wrong_policies_are_one_mistake_each() {
    for line in WRONG_POLICIES.lines() {
        let (key, rest) = line.split_once(": ").unwrap();
        let (value, wanted) = rest.split_once(" => ").unwrap();
        let plain = key.split('[').next().unwrap();
        let mut parts: Vec<&str> = plain.split('.').collect();
        let name = parts.pop().unwrap();
        let mut body = format!("{name}: {value}");
        for part in parts.into_iter().rev() {
            body = format!("{part}: {{ {body} }}");
        }
        for (text, place) in [
            (format!("defaults:\n  {body}"), "2: defaults"),
            (
                format!("upstreams: {{ a: {{ hosts: [b],\n {body} }} }}"),
                "2: upstreams.a",
            ),
        ] {
            let found = mistakes(&text);
            assert_eq!(found.len(), 1, "{text}\n{found:#?}");
            assert!(
                found[0].starts_with(&format!("f:{place}.{key}: ")),
                "{text}\n{}",
                found[0]
            );
            assert!(found[0].contains(wanted), "{text}\n{}", found[0]);
        }
    }
}

#[test]
fn what_contradicts_itself_is_a_mistake() {
    for (body, wanted) in [
        (
            "circuit_breaker: { failures: 3, consecutive: 4 }",
            "f:2: upstreams.a.circuit_breaker: has failures or consecutive, not both",
        ),
        (
            "circuit_breaker: { ratio: 30%, consecutive: 4 }",
            "f:2: upstreams.a.circuit_breaker: has ratio or consecutive, not both",
        ),
        (
            "rate_limit: { requests_per_second: 1, burst: 0 }",
            "f:2: upstreams.a.rate_limit.burst: must be at least 1, got 0",
        ),
        (
            "rate_limit: { requests_per_second: 1, on_limit: drop }",
            "f:2: upstreams.a.rate_limit.on_limit: must be one of reject, wait, got drop",
        ),
    ] {
        let text = format!("upstreams: {{ a: {{ hosts: [b],\n {body} }} }}");
        assert_eq!(mistakes(&text), [wanted], "{text}");
    }
}

#[test]
fn mistakes_of_a_route_have_its_path() {
    let text = "\
upstreams: { a: { hosts: [b], retry: { cap: 1s } } }
routes:
  - upstream: a
    retry: { base: 2s, attempts: 0 }
    timeouts: { per_try: 0s, head: 1s }
    circuit_breaker: { failures: 1, consecutive: 1 }
    rate_limit: { burst: 1 }
    headers: { set: { host: x } }
    pool: { max_requests: 1 }
    poll: 1
";
    let wanted = [
        "f:4: routes[0].retry.attempts: must be from 1 to 100, got 0",
        "f:4: routes[0].retry.base: base is over cap, got 2s",
        "f:5: routes[0].timeouts.per_try: must be longer than zero, or none, got 0s",
        "f:5: routes[0].timeouts.head: is over before there is a request to route, got 1s",
        "f:6: routes[0].circuit_breaker: has failures or consecutive, not both",
        "f:7: routes[0].rate_limit: must have requests_per_second",
        "f:8: routes[0].headers.set.host: is a header that the proxy itself answers for, got host",
        "f:9: routes[0].pool: is for a whole upstream: its routes share the connections",
        "f:10: routes[0].poll: unknown key; known here: match, upstream, timeouts, retry, \
         circuit_breaker, rate_limit, load_balancing, outlier, hedge, headers, fault",
    ];
    assert_eq!(mistakes(text), wanted);
}

#[test]
fn a_certificate_goes_with_its_key_and_with_a_server_that_is_known() {
    let all = |tls: &str, to: &str| mistakes(&format!("upstreams: {{ a: {{ {to} tls: {tls} }} }}"));
    let neither = ["f:1: upstreams.a.tls: must have cert and key, or neither"];
    for tls in ["{ cert: c.pem }", "{ key: k.pem }"] {
        assert_eq!(all(tls, "dns: a.example:443,"), neither);
    }
    let both = |verify: &str| format!("{{ cert: c.pem, key: k.pem, verify: {verify} }}");
    let hosts = "hosts: [a.example],";
    assert_eq!(all(&both("full"), hosts), [""; 0]);
    assert_eq!(all(&both("ca"), "dns: a.example:443,"), [""; 0]);
    let refused = all(&both("ca"), hosts);
    assert!(refused[0].starts_with("f:1: upstreams.a.tls: a client certificate needs endpoints"));
}
