//! Holds what ARCHITECTURE.md promises against the code: which module may
//! import which, how long a file and a function may be, what an argument may not
//! be, and words that may not appear; that names are nouns; that documents name
//! files that exist; that tests of the matrix name no protocol; that no lock file
//! lags behind the manifests; and that each block of a document says what it is.

mod by_hand;
mod circles;
mod documents;
mod matrix;
mod names;
mod shape;

use std::path::{Path, PathBuf};

use crate::docs;
use crate::workspace::{self, Failure};

/// The modules of the `ambassador` library, lowest first. A module imports
/// only from lines above its own, and from its own line.
const LAYERS: [&[&str]; 21] = [
    &["addr", "clock", "combinators", "printable", "spares"],
    &["message"],
    &["http1", "http2", "sniff"],
    &["credential"],
    &["policy"],
    &["route"],
    &["telemetry"],
    &["ring"],
    &["tls"],
    &["transport"],
    &["multiplex"],
    &["workload"],
    &["capture"],
    &["upstream"],
    &["proxy"],
    &["shard"],
    &["control"],
    &["config"],
    &["doctor", "exec"],
    &["app", "cli"],
    &["testing"],
];

/// Imports that the order of the layers would allow and that are wrong still.
const NEVER: [(&str, &str); 17] = [
    ("policy", "http1"),
    ("policy", "http2"),
    ("route", "http1"),
    ("route", "http2"),
    ("http2", "http1"),
    ("http1", "http2"),
    ("telemetry", "message"),
    ("telemetry", "http1"),
    ("telemetry", "http2"),
    ("tls", "policy"),
    ("upstream", "control"),
    ("ring", "telemetry"),
    ("ring", "route"),
    ("ring", "policy"),
    ("ring", "message"),
    ("ring", "http1"),
    ("ring", "http2"),
];

/// Modules that speak to a transport, and never to the stream below it.
const ABOVE_TRANSPORT: [&str; 3] = ["multiplex", "proxy", "upstream"];

/// Crates that one module alone may know.
const ONLY_IN: [(&str, &str); 3] = [
    ("io_uring", "ring"),
    ("aya", "capture"),
    ("hyper", "control"),
];

/// Files that import each other all the same, and why.
const CIRCLES: [(&[&str], &str); 1] = [(
    &[
        "workload/helper",
        "workload/helper/files",
        "workload/helper/journal",
        "workload/helper/keeper",
        "workload/helper/loaders",
        "workload/helper/message",
        "workload/helper/registry",
        "workload/helper/serve",
        "workload/helper/undo",
        "workload/named",
        "workload/sockets",
        "workload/supply",
    ],
    "the helper and what asks it for sockets and files speak in the same types",
)];

/// A file longer than this holds more than one noun.
const LINES_MAX: usize = 500;

/// The same for files of tests: a behaviour each, told in many cases.
const TEST_LINES_MAX: usize = 1000;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 5] = ["util", "utils", "common", "helpers", "misc"];

/// Checks everything and reports every mistake at once.
pub fn check() -> Result<(), Failure> {
    let mut mistakes = Vec::new();
    for top in [
        "ambassador",
        "ambassador-ebpf",
        "xtask",
        "tests",
        "benches",
        "deploy",
    ] {
        for path in rust_files(&workspace::root().join(top))? {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| Failure::File(path.clone(), error))?;
            check_file(&path, &text, &mut mistakes);
        }
    }
    check_circles(&mut mistakes)?;
    shape::check(&mut mistakes)?;
    check_by_hand(&mut mistakes)?;
    documents::check(&LAYERS, &mut mistakes)?;
    check_locks(&mut mistakes);
    // A block that says neither what it is nor why it does not run.
    match docs::documents(&workspace::root()) {
        Err(Failure::Check(blocks)) => mistakes.extend(blocks),
        other => drop(other?),
    }
    if mistakes.is_empty() {
        println!("tidy");
        return Ok(());
    }
    Err(Failure::Check(mistakes))
}

/// Files of the library that import each other have to be listed, and nothing is
/// listed that does not.
fn check_circles(mistakes: &mut Vec<String>) -> Result<(), Failure> {
    let source = workspace::root().join("ambassador/src");
    let circles = circles::of(&source, &rust_files(&source)?)?;
    let is_listed = |circle: &Vec<String>| CIRCLES.iter().any(|(listed, _)| listed == circle);
    for circle in circles.iter().filter(|circle| !is_listed(circle)) {
        let circle = circle.join(", ");
        mistakes.push(format!("files that import each other: {circle}"));
    }
    for (listed, _) in CIRCLES {
        if !circles.iter().any(|circle| circle == listed) {
            let listed = listed.join(", ");
            mistakes.push(format!(
                "xtask/src/tidy.rs lists no circle any more: {listed}"
            ));
        }
    }
    Ok(())
}

/// What calls the C library itself is listed, with its reason.
fn check_by_hand(mistakes: &mut Vec<String>) -> Result<(), Failure> {
    let source = workspace::root().join("ambassador/src");
    let path = workspace::root().join("ARCHITECTURE.md");
    let document = std::fs::read_to_string(&path);
    let document = document.map_err(|error| Failure::File(path, error))?;
    by_hand::check(&source, &rust_files(&source)?, &document, mistakes)
}

/// The fuzz targets are a workspace of their own: a build of everything else
/// leaves their lock file as it was when a dependency comes or goes.
fn check_locks(mistakes: &mut Vec<String>) {
    for manifest in ["Cargo.toml", "ambassador/fuzz/Cargo.toml"] {
        let output = workspace::command("cargo")
            .args(["metadata", "--locked", "--format-version=1"])
            .args(["--manifest-path", manifest])
            .output();
        let reason = match output {
            Ok(output) if output.status.success() => continue,
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        mistakes.push(format!(
            "{manifest}: its lock file is behind (`cargo update --workspace` there puts it right): {reason}"
        ));
    }
}

fn check_file(path: &Path, text: &str, mistakes: &mut Vec<String>) {
    let root = workspace::root();
    let shown = path
        .strip_prefix(&root)
        .unwrap_or(path)
        .display()
        .to_string();
    let stem = path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned());
    let stem = stem.unwrap_or_default();

    let is_test = stem == "tests" || shown.contains("tests/");
    let lines_max = if is_test { TEST_LINES_MAX } else { LINES_MAX };
    let lines = text.lines().count();
    if lines > lines_max {
        mistakes.push(format!("{shown}: {lines} lines, at most {lines_max}"));
    }
    if stem == "mod" {
        mistakes.push(format!(
            "{shown}: write `foo.rs` beside `foo/`, not `mod.rs`"
        ));
    }
    if EMPTY_NAMES.contains(&stem.as_str()) {
        mistakes.push(format!(
            "{shown}: the name says nothing about what is inside"
        ));
    }
    if stem != "tests" && !text.starts_with("//!") && !text.starts_with("#!") {
        mistakes.push(format!("{shown}:1: a file opens with `//!`: what it is"));
    }
    let module = path
        .strip_prefix(root.join("ambassador/src"))
        .ok()
        .and_then(|inside| inside.components().next())
        .map(|first| {
            first
                .as_os_str()
                .to_string_lossy()
                .trim_end_matches(".rs")
                .to_owned()
        });
    if let Some(module) = &module
        && layer_of(module).is_none()
        && !["lib", "main"].contains(&module.as_str())
    {
        mistakes.push(format!(
            "{shown}: the module `{module}` has no layer in xtask/src/tidy.rs"
        ));
    }
    if ["ambassador/", "ambassador-ebpf/", "xtask/"]
        .iter()
        .any(|top| shown.starts_with(top))
        && !is_test
    {
        names::check(&shown, path, text, mistakes);
    }
    if shown.starts_with("tests/tests/e2e") {
        matrix::check(&shown, text, mistakes);
    }
    for (index, line) in text.lines().enumerate() {
        let place = format!("{shown}:{}", index + 1);
        for word in forbidden_words() {
            if line.contains(&word) {
                mistakes.push(format!("{place}: `{word}`"));
            }
        }
        if let Some(module) = &module {
            check_imports(module, line, &place, mistakes);
        }
    }
}

/// Put together here so that this file does not contain them.
fn forbidden_words() -> [String; 5] {
    [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X"].concat(),
        ["#[ig", "nore"].concat(),
        ["#[al", "low("].concat(),
    ]
}

fn check_imports(module: &str, line: &str, place: &str, mistakes: &mut Vec<String>) {
    let code = line.split("//").next().unwrap_or(line);
    if let Some(layer) = layer_of(module) {
        for other in crate_paths(code) {
            let allowed = other == module
                || layer_of(other).is_none_or(|imported| imported <= layer)
                    && !NEVER.contains(&(module, other));
            if !allowed {
                mistakes.push(format!("{place}: `{module}` may not import `{other}`"));
            }
        }
    }
    if ABOVE_TRANSPORT.contains(&module) && words(code).any(|word| word == "Stream") {
        mistakes.push(format!(
            "{place}: `{module}` speaks to a `Transport`, not to a `Stream`"
        ));
    }
    for (name, owner) in ONLY_IN {
        let imports = code.contains(&format!("{name}::")) && !code.contains(&format!("_{name}::"));
        if imports && module != owner {
            mistakes.push(format!(
                "{place}: only `{owner}` may know the crate `{name}`"
            ));
        }
    }
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The first segment of every `crate::` path of a line, one in braces included.
fn crate_paths(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let names = match rest.strip_prefix('{') {
            Some(inside) => inside
                .split('}')
                .next()
                .unwrap_or(inside)
                .split(',')
                .collect(),
            None => vec![rest],
        };
        for name in names {
            let name = name.trim();
            let end = name
                .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
                .unwrap_or(name.len());
            if end > 0 {
                found.push(&name[..end]);
            }
        }
    }
    found
}

fn rust_files(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    let mut left = vec![directory.to_path_buf()];
    while let Some(directory) = left.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Failure::File(directory, error)),
        };
        for entry in entries {
            let path = entry
                .map_err(|error| Failure::File(directory.clone(), error))?
                .path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    left.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(module: &str, line: &str) -> Vec<String> {
        let mut mistakes = Vec::new();
        check_imports(module, line, "here", &mut mistakes);
        mistakes
    }

    #[test]
    fn downward_imports_pass() {
        assert!(imports("proxy", "use crate::{ring, upstream::Pool};").is_empty());
        assert!(imports("message", "use crate::message::Limits; // crate::proxy").is_empty());
    }

    #[test]
    fn files_are_short_and_those_of_tests_twice_as_long() {
        let found = |file: &str, lines: usize| {
            let mut mistakes = Vec::new();
            let path = workspace::root().join(file);
            check_file(&path, &"//! It is.\n".repeat(lines), &mut mistakes);
            mistakes.len()
        };
        assert_eq!(found("ambassador/src/proxy/routing.rs", 500), 0);
        assert_eq!(found("ambassador/src/proxy/routing.rs", 501), 1);
        assert_eq!(found("xtask/src/tidy.rs", 501), 1);
        assert_eq!(found("ambassador/src/proxy/routing/tests.rs", 1_000), 0);
        assert_eq!(found("tests/tests/e2e/retries.rs", 1_001), 1);
    }

    #[test]
    fn upward_and_named_imports_are_reported() {
        assert_eq!(imports("message", "use crate::http1::BodyReader;").len(), 1);
        assert_eq!(
            imports("policy", "use crate::{addr, ring, config};").len(),
            2
        );
        assert_eq!(imports("ring", "use crate::message::Limits;").len(), 1);
        assert_eq!(imports("upstream", "use io_uring::opcode;").len(), 1);
        assert_eq!(
            imports("proxy", "use crate::ring::{self, Stream};").len(),
            1
        );
        assert!(imports("proxy", "use std::os::unix::net::UnixStream;").is_empty());
    }
}
