//! Network namespaces that last as long as a test.

use std::fs::File;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::os;
use crate::program::succeed;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace with its loopback device up.
pub struct Netns {
    name: String,
    path: PathBuf,
}

impl Netns {
    /// A new namespace. Needs root and `ip`.
    pub fn new() -> Netns {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("amb-T-{}-{number}", std::process::id());
        succeed(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Netns {
            path: Path::new("/run/netns").join(&name),
            name,
        };
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// The file that names it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name, as `ip` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` on it.
    pub fn ip(&self, arguments: &[&str]) {
        succeed(Command::new("ip").args(["-n", &self.name]).args(arguments));
    }

    /// Joins two namespaces by a veth pair: `near` and `far` are addresses
    /// with a prefix length, `10.200.1.1/24`.
    pub fn connect(&self, near: &str, other: &Netns, far: &str) {
        let device = format!("v{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.ip(&[
            "link",
            "add",
            &device,
            "type",
            "veth",
            "peer",
            "name",
            &device,
            "netns",
            &other.name,
        ]);
        for (namespace, address) in [(self, near), (other, far)] {
            let mut add = vec!["addr", "add", address, "dev", &device];
            if address.contains(':') {
                add.push("nodad");
            }
            namespace.ip(&add);
            namespace.ip(&["link", "set", &device, "up"]);
        }
    }

    /// Puts `nsenter` before `command`'s program. (`ip netns exec` would hide
    /// the cgroup tree.)
    pub fn wrap(&self, program: &str) -> [String; 3] {
        [
            "nsenter".into(),
            format!("--net={}", self.path.display()),
            program.into(),
        ]
    }

    /// A listener inside.
    pub fn listen(&self, address: impl ToSocketAddrs + Send) -> TcpListener {
        let namespace = File::open(&self.path).expect("the namespace is there");
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                os::enter_network_namespace(namespace.as_fd()).expect("entering needs root");
                TcpListener::bind(address).expect("the address is free in a new namespace")
            });
            inside.join().expect("the thread did not panic")
        })
    }
}

impl Default for Netns {
    fn default() -> Netns {
        Netns::new()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}
