//! Tokens of OpenBao: what it signs, what it keeps, and those for OpenBao itself.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ambassador_tests::program::{self, Running};
use ambassador_tests::proxy::Scratch;
use ambassador_tests::{
    Backend, Client, OpenBao, Proxy, Server, eventually, on_both_backends, openbao,
};
use serde_json::Value;

use crate::load::{Load, is_200};

on_both_backends!(
    a_token_that_it_signs_is_fetched_anew_ahead_of_its_end,
    it_is_called_without_a_token_while_tokens_are_replaced,
);

const SOON: Duration = Duration::from_secs(20);
/// How long requests go: several lives of a token.
const RUNS: Duration = Duration::from_secs(7);

/// Verifies tokens by the keys that OpenBao publishes, and prints what each claims.
const VERIFY: &str = r#"
import json, jwt, sys
keys = {key.key_id: key for key in jwt.PyJWKSet.from_json(sys.argv[1]).keys}
print(json.dumps([jwt.decode(
    token, keys[jwt.get_unverified_header(token)["kid"]], algorithms=["RS256"],
    audience="payments", issuer=sys.argv[2],
    options={"verify_exp": False, "require": ["iss", "sub", "aud", "iat", "exp"]},
) for token in sys.argv[3:]]))
"#;

/// Its agent, which logs in, keeps its token in `token`, and lets whoever comes by
/// `agent.sock` use it.
struct Agent {
    scratch: Scratch,
    _running: Running,
}

impl Agent {
    /// Its tokens hold for `ttl`, and allow what `policy` says.
    #[track_caller]
    fn start(bao: &OpenBao, policy: &str, ttl: &str) -> Agent {
        let scratch = Scratch::new();
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(scratch.path(), open).expect("it is ours");
        bao.run(&["auth", "enable", "approle"]);
        bao.run(&[
            "policy",
            "write",
            "orders",
            &path(&scratch, "policy", policy),
        ]);
        let lives = [
            &*format!("token_ttl={ttl}"),
            &*format!("token_max_ttl={ttl}"),
        ];
        let role = "auth/approle/role/orders";
        bao.write(role, &[&["token_policies=orders"], &lives[..]].concat());
        let id = bao.run(&["read", "-field=role_id", &format!("{role}/role-id")]);
        let secret = bao.write(&format!("{role}/secret-id"), &[]);
        let secret = secret["secret_id"].as_str().expect("a secret").to_owned();
        let text = format!(
            "vault {{ address = \"{}\" }}\n\
             auto_auth {{\n  method \"approle\" {{ config = {{ role_id_file_path = \"{}\", \
             secret_id_file_path = \"{}\" }} }}\n  \
             sink \"file\" {{ config = {{ path = \"{directory}/token\", mode = 0600 }} }}\n}}\n\
             api_proxy {{ use_auto_auth_token = true }}\n\
             listener \"unix\" {{ address = \"{directory}/agent.sock\"\n  \
             socket_mode = \"0666\"\n  socket_user = \"0\"\n  socket_group = \"0\"\n  \
             tls_disable = true }}\n",
            bao.url(),
            path(&scratch, "role", &id),
            path(&scratch, "secret", &secret),
            directory = scratch.path().display(),
        );
        let mut agent = Command::new(openbao::binary());
        agent
            .env("HOME", scratch.path())
            .arg("agent")
            .arg(format!("-config={}", path(&scratch, "agent.hcl", &text)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let agent = Agent {
            _running: Running::start(&mut agent),
            scratch,
        };
        eventually("the agent has logged in", SOON, || {
            agent.at("token").exists() && agent.at("agent.sock").exists()
        });
        agent
    }

    fn at(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }
}

fn path(scratch: &Scratch, name: &str, text: &str) -> String {
    scratch.file(name, text).display().to_string()
}

/// The program where everybody may run it.
fn program_for_everybody(directory: &Path) -> String {
    let place = directory.join("bao");
    let binary = openbao::binary();
    if fs::hard_link(&binary, &place).is_err() {
        fs::copy(&binary, &place).expect("there is room for it");
    }
    place.display().to_string()
}

/// Each token that came, with the last time that it did, in seconds.
fn tokens(server: &Server, client: &mut Client) -> BTreeMap<String, u64> {
    let mut tokens = BTreeMap::new();
    let end = Instant::now() + RUNS;
    while Instant::now() < end {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.reason()), (200, ""));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("it is after 1970").as_secs();
        let request = server.last_request();
        let shown = request.field("authorization").unwrap_or_default();
        let token = shown.strip_prefix("Bearer ").expect("it is a bearer token");
        tokens.insert(token.to_owned(), now);
        sleep(Duration::from_millis(20));
    }
    tokens
}

fn a_token_that_it_signs_is_fetched_anew_ahead_of_its_end(backend: Backend) {
    let bao = OpenBao::start();
    bao.write("identity/oidc/key/orders", &["allowed_client_ids=payments"]);
    let role = ["key=orders", "ttl=5s", "client_id=payments"];
    bao.write("identity/oidc/role/payments", &role);
    let policy = r#"path "identity/oidc/token/payments" { capabilities = ["read"] }"#;
    let agent = Agent::start(&bao, policy, "1h");
    let program = program_for_everybody(agent.scratch.path());
    let socket = format!("-address=unix://{}", agent.at("agent.sock").display());
    let words = [
        &*program,
        "read",
        &*socket,
        "-field=token",
        "identity/oidc/token/payments",
    ];
    let auth = format!(
        "auth: {{ bearer: {{ exec: {}, ttl: 4s }} }}\n",
        serde_json::to_string(&words).expect("it is text")
    );
    let server = Server::ok();
    let (proxy, listen) = Proxy::in_front_of_with(backend, server.address(), &auth);
    let mut client = Client::connect(listen);
    let mut shown = tokens(&server, &mut client);
    // Tokens of the key of before are good for as long as they hold.
    bao.write("identity/oidc/key/orders/rotate", &[]);
    shown.append(&mut tokens(&server, &mut client));

    let keys = bao.get("/v1/identity/oidc/.well-known/keys");
    let mut python = program::python_with("pyjwt[crypto]==2.10.1");
    python.args(["-c", VERIFY, &keys]);
    python.arg(format!("{}/v1/identity/oidc", bao.url()));
    let claims = program::succeed(python.args(shown.keys()));
    let claims: Vec<Value> = serde_json::from_str(&claims).expect("json.dumps writes JSON");
    assert!((4..=8).contains(&claims.len()), "{claims:?}");
    for (claims, last) in claims.iter().zip(shown.values()) {
        let end = claims["exp"].as_u64().expect("a time");
        assert!(*last < end, "sent at {last}: {claims}");
    }
    for told in [
        proxy.log(),
        proxy.admin_get("/config"),
        proxy.admin_get("/upstreams"),
    ] {
        assert!(!shown.keys().any(|token| told.contains(token)), "{told}");
    }
}

fn it_is_called_without_a_token_while_tokens_are_replaced(backend: Backend) {
    let bao = OpenBao::start();
    bao.run(&["kv", "put", "secret/shop", "key=k3y"]);
    let policy = r#"path "secret/data/shop" { capabilities = ["read"] }"#;
    let agent = Agent::start(&bao, policy, "4s");
    let auth = format!(
        "auth: {{ bearer: {{ file: \"{}\" }} }}\nretry: {{ attempts: 1 }}\n",
        agent.at("token").display()
    );
    let (proxy, listen) = Proxy::in_front_of_with(backend, bao.address(), &auth);
    let direct = Client::connect(bao.address()).get("/v1/secret/data/shop");
    assert_eq!(direct.status, 403, "{}", direct.text());
    let mut replaced = std::collections::BTreeSet::new();
    let load = Load::start(move || {
        let mut caller = Client::connect(listen);
        Box::new(move |_| {
            let answer = caller.get("/v1/secret/data/shop");
            is_200(Some(&answer))?;
            match answer.text().contains(r#""key":"k3y""#) {
                true => Ok(()),
                false => Err(answer.text()),
            }
        })
    });
    let end = Instant::now() + RUNS;
    while Instant::now() < end {
        replaced.insert(fs::read_to_string(agent.at("token")).expect("the agent wrote it"));
        sleep(Duration::from_millis(100));
    }
    let result = load.stop();
    println!(
        "{} requests with {} tokens, {} failed",
        result.asked,
        replaced.len(),
        result.failed.len()
    );
    result.expect_none_failed(&[&proxy]);
    assert!(result.asked > 500 && replaced.len() >= 2, "{replaced:?}");
    // What it does not allow is for the program to know.
    let other = Client::connect(listen).get("/v1/secret/data/other");
    assert_eq!((other.status, other.reason()), (403, ""));
    assert!(proxy.upstream("web")["credential"]["last_failure"].is_null());
}
