//! What an accepted connection costs for being captured: the lookup of its
//! token. The table is in the kernel, so this captures a real connect(), which
//! takes root and a build with the BPF programs inside.

use std::error::Error;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::{fs, process};

use ambassador::testing::capture::settings::{Claims, Settings, Target};
use ambassador::testing::capture::{self, Accepted, Capture, Options, Workload};
use ambassador::testing::workload::Helper;
use ambassador::testing::workload::helper::Errand;

use crate::Measure;

/// A program that connects from inside of the cgroup `$0`. It sees what the
/// kernel says of its peer, and nothing comes.
const CONNECT: &str = "echo 0 > \"$0/cgroup.procs\" && exec bash -c ': < /dev/tcp/10.1.2.3/80'";

/// Measures the lookup, or tells why it cannot be.
pub(crate) fn all(measure: &mut impl Measure) -> Result<(), Box<dyn Error>> {
    let cgroup = Cgroup::new()?;
    let listener = TcpListener::bind("[::]:0")?;
    let proxy_port = listener.local_addr()?.port();
    let target = Target {
        cgroup: cgroup.0.clone(),
        netns: None,
    };
    let settings = Settings {
        targets: vec![target.clone()],
        ..Settings::default()
    };
    let options = Options {
        proxy_port,
        shards: 1,
        may_pin: false,
        kernel_log: false,
    };
    let helper = Arc::new(Helper::start(Errand::Capture)?);
    let workloads = [Workload { number: 0, target }];
    let claims = Claims::default();
    let (capture, _) = Capture::start(&settings, &claims, &workloads, options, &helper)?;
    let table = capture.table();
    table.heartbeat(0).beat();
    let connected = Command::new("sh")
        .args(["-c", CONNECT])
        .arg(&cgroup.0)
        .status()?;
    if !connected.success() {
        return Err("the connect of a captured program has failed".into());
    }
    let local = listener.accept()?.0.local_addr()?;
    if !matches!(table.lookup(local)?, Accepted::Token(_)) {
        return Err("what was accepted was not captured".into());
    }
    measure.each("capture/lookup", || table.lookup(local));
    drop(capture);
    capture::unroute(None, proxy_port)?;
    Ok(())
}

/// A cgroup, removed at the end.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Result<Self, Box<dyn Error>> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mut mounts = mounts.lines().map(|line| line.split(' '));
        let root = mounts
            .find_map(|mut words| {
                let path = words.nth(1)?;
                (words.next() == Some("cgroup2")).then(|| PathBuf::from(path))
            })
            .ok_or("no cgroup2 is mounted")?;
        let path = root.join(format!("ambassador-micro-{}", process::id()));
        fs::create_dir(&path).map_err(|error| failed(&path, &error))?;
        Ok(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{}", failed(&self.0, &error));
        }
    }
}

fn failed(path: &Path, error: &dyn Error) -> String {
    format!("{}: {error}", path.display())
}
