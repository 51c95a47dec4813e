//! The image run as a container is: its files alone, read-only, in namespaces, as
//! the user and with the capabilities that a manifest says.

use std::path::{Path, PathBuf};
use std::process::Command;

use ambassador_tests::proxy::Scratch;
use ambassador_tests::{Netns, program};
use serde_json::Value;

use crate::dist;

/// What a runtime does before it starts the program: mounts, then what it takes
/// away. `MOUNTS` are pairs of a directory outside and its place inside.
const START: &str = r#"
set -e
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
for pair in $MOUNTS; do
    mkdir -p "$ROOT${pair#*:}"
    mount --bind "${pair%:*}" "$ROOT${pair#*:}"
done
mount -o remount,bind,ro "$ROOT"
all=$(capsh --print | sed -n 's/^Bounding set =//p' | tr , '\n')
dropped=$(echo "$all" | grep -vxF "$(echo "$KEPT" | tr , '\n')" | paste -sd,)
exec capsh --quiet --no-new-privs --chroot="$ROOT" --drop="$dropped" \
    --groups= --gid="$GROUP" --uid="$USER" --shell=/ambassador -- "$@"
"#;

/// A container of the image that is not started.
pub struct Container {
    files: Scratch,
    mounts: Vec<(PathBuf, &'static str)>,
}

impl Container {
    /// One of its own.
    pub fn new() -> Container {
        let files = Scratch::new();
        program::succeed(
            Command::new("tar")
                .arg("xzf")
                .arg(layer())
                .arg("-C")
                .arg(files.path()),
        );
        for directory in ["proc", "dev"] {
            std::fs::create_dir(files.path().join(directory)).expect("not in the image");
        }
        Container {
            files,
            mounts: Vec::new(),
        }
    }

    /// Its files from outside.
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// Writes a file that a runtime or a volume brings.
    pub fn file(&self, path: &str, text: &str) {
        let path = self.files.path().join(path);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("ours");
        std::fs::write(path, text).expect("ours");
    }

    /// Mounts a directory of the host.
    pub fn mount(&mut self, from: &Path, to: &'static str) {
        self.mounts.push((from.to_path_buf(), to));
    }

    /// The program, started as `container` of a manifest says, in a network
    /// namespace and the cgroup that the caller puts it into.
    pub fn command(&self, container: &Value, network: &Netns) -> Command {
        let security = &container["securityContext"];
        let kept: Vec<String> = strings(&security["capabilities"]["add"])
            .map(|name| format!("cap_{}", name.to_lowercase()))
            .collect();
        let mounts: Vec<String> = self
            .mounts
            .iter()
            .map(|(from, to)| format!("{}:{to}", from.display()))
            .collect();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", network.path().display()))
            .args(["unshare", "--mount", "--cgroup", "sh", "-c", START, "sh"])
            .args(arguments(container))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("ROOT", self.files.path())
            .env("MOUNTS", mounts.join(" "))
            .env("KEPT", kept.join(","))
            .env("USER", security["runAsUser"].to_string())
            .env("GROUP", security["runAsGroup"].to_string());
        for variable in container["env"].as_array().into_iter().flatten() {
            let name = variable["name"].as_str().expect("a name");
            command.env(name, variable["value"].as_str().expect("a text"));
        }
        command
    }
}

/// The program's arguments: those of the manifest, else those of the image.
fn arguments(container: &Value) -> Vec<String> {
    match &container["args"] {
        Value::Null => strings(&config()["config"]["Cmd"])
            .map(String::from)
            .collect(),
        list => strings(list).map(String::from).collect(),
    }
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    let list = list.as_array().into_iter().flatten();
    list.map(|one| one.as_str().expect("a text"))
}

/// The only layer.
pub fn layer() -> PathBuf {
    let layers = manifest()["layers"].as_array().cloned().expect("a list");
    let [layer] = &layers[..] else {
        panic!("one layer: {layers:?}");
    };
    blob(layer)
}

/// The image's configuration.
pub fn config() -> Value {
    read(&blob(&manifest()["config"]))
}

fn manifest() -> Value {
    let index = read(&dist().join("image/index.json"));
    read(&blob(&index["manifests"][0]))
}

/// The file that a descriptor means; its size and digest are what it says.
fn blob(descriptor: &Value) -> PathBuf {
    let digest = descriptor["digest"].as_str().expect("a digest");
    let digest = digest.strip_prefix("sha256:").expect("of this kind");
    let path = dist().join("image/blobs/sha256").join(digest);
    let said = program::succeed(Command::new("sha256sum").arg(&path));
    assert!(said.starts_with(digest), "{said}");
    let size = std::fs::metadata(&path).expect("it is there").len();
    assert_eq!(descriptor["size"], size);
    path
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("it is there");
    serde_json::from_str(&text).expect("it is JSON")
}
