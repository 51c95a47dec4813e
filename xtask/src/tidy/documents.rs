//! Holds what the documents say of the code against it: the files that they
//! name exist, the table of modules in ARCHITECTURE.md is that of the layers, and
//! the limits in README.md are those of the code.

mod limits;

use std::path::Path;

use crate::workspace::{self, Failure};

/// Names that stand for any file.
const EXAMPLES: [&str; 4] = ["foo.rs", "foo/", "foo/tests.rs", "mod.rs"];

/// How a span ends that is the name of a file or of a directory.
const ENDINGS: [&str; 8] = [
    "/", ".rs", ".md", ".toml", ".yaml", ".svg", ".html", ".json",
];

/// From where documents name files, besides the place where they are.
const TOPS: [&str; 5] = [
    "",
    "ambassador/src",
    "ambassador-ebpf/src",
    "ambassador",
    "tests/tests/e2e",
];

/// Checks every document but the change log, which names what was there once.
pub fn check(layers: &[&[&str]], mistakes: &mut Vec<String>) -> Result<(), Failure> {
    let root = workspace::root();
    let mut git = workspace::command("git");
    git.args(["ls-files", "*.md"]).current_dir(&root);
    let listed = workspace::output(&mut git)?;
    for name in listed.lines().filter(|name| *name != "CHANGELOG.md") {
        let path = root.join(name);
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|error| Failure::File(path, error))?;
        check_paths(&root, name, &text, mistakes);
        match name {
            "README.md" => limits::check(&root, &text, mistakes)?,
            "ARCHITECTURE.md" => {
                let source = root.join("ambassador/src");
                let exists = |module: &str| source.join(module).with_extension("rs").exists();
                check_layers(&text, layers, exists, mistakes);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Reports every file that a document names, in backticks or as a link, and that
/// does not exist.
fn check_paths(root: &Path, name: &str, text: &str, mistakes: &mut Vec<String>) {
    let here = root.join(name);
    let here = here.parent().unwrap_or(root);
    let exists = |path: &str| {
        let mut tops = TOPS.iter().map(|top| root.join(top).join(path));
        tops.any(|path| path.exists()) || here.join(path).exists()
    };
    let mut is_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        let place = format!("{name}:{}", index + 1);
        for path in spans(line).filter(|span| is_path(span)) {
            if !exists(path) {
                mistakes.push(format!("{place}: there is no file `{path}`"));
            }
        }
        for link in links(line) {
            if !here.join(link).exists() {
                mistakes.push(format!("{place}: the link to {link} leads nowhere"));
            }
        }
    }
}

/// What stands in backticks.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Where the links of a line lead that lead to a file, without their fragment.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| {
        let (target, _) = rest.split_once(')')?;
        target.split('#').next()
    });
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

/// Whether a span names a file of this repository: not one of the machine, of
/// the build, or of an example, and no pattern.
fn is_path(span: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./".contains(letter);
    ENDINGS.iter().any(|ending| span.ends_with(ending))
        && span.chars().all(is_plain)
        && !span.starts_with('/')
        && !span.starts_with('.')
        && !span.starts_with("target/")
        && !EXAMPLES.contains(&span)
}

/// Reports a difference between the table under "Modules" and the layers, but
/// for modules that do not exist yet.
fn check_layers(
    document: &str,
    layers: &[&[&str]],
    exists: impl Fn(&str) -> bool,
    mistakes: &mut Vec<String>,
) {
    let existing = layers.iter().map(|layer| {
        let names = layer.iter().filter(|name| exists(name));
        names.map(|name| (*name).to_owned()).collect::<Vec<_>>()
    });
    let existing: Vec<Vec<String>> = existing.filter(|layer| !layer.is_empty()).collect();
    let written = table(document);
    if written == existing {
        return;
    }
    let lines = existing
        .iter()
        .map(|layer| format!("`{}`", layer.join("`, `")));
    mistakes.push(format!(
        "ARCHITECTURE.md: the first column under \"Modules\" is not that of the layers in xtask/src/tidy.rs: {}",
        lines.collect::<Vec<_>>().join(" | ")
    ));
}

/// The names in the first column of the table, line by line.
fn table(document: &str) -> Vec<Vec<String>> {
    let section = document
        .split_once("\n## Modules\n")
        .map_or("", |(_, rest)| rest);
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let first = rows.filter_map(|line| line.split('|').nth(1));
    first
        .map(|cell| spans(cell).map(str::to_owned).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        let mut mistakes = Vec::new();
        check_paths(&workspace::root(), "docs/a.md", text, &mut mistakes);
        mistakes
    }

    #[test]
    fn files_that_exist_pass_and_others_are_reported() {
        let fine = "`xtask/src/tidy.rs`, `proxy/forward.rs`, `programs/connect4.rs`, `tests/capture/`, \
            [it](benchmark.md#here) and [there](https://example.com/x.md)";
        assert!(paths(fine).is_empty(), "{:?}", paths(fine));
        let wrong = [
            "see `proxy/nothing.rs`",
            "see `nothing/`",
            "[it](nothing.md)",
        ];
        for text in wrong {
            assert_eq!(paths(text).len(), 1, "{text}");
        }
    }

    #[test]
    fn what_is_no_file_of_the_repository_is_left_out() {
        let text = "`foo.rs`, `/sys/fs/bpf/`, `target/fuzz/corpus/`, `*.rs`, `retry.on`\n```sh\n`nothing.rs`\n```";
        assert!(paths(text).is_empty(), "{:?}", paths(text));
    }

    fn layers(document: &str) -> usize {
        let mut mistakes = Vec::new();
        let layers: [&[&str]; 3] = [&["a", "b"], &["later"], &["c"]];
        check_layers(document, &layers, |name| name != "later", &mut mistakes);
        mistakes.len()
    }

    #[test]
    fn the_table_has_the_lines_of_the_layers_in_their_order() {
        let table = |lines: &str| {
            format!(
                "x\n\n## Modules\n\n| module | is |\n|---|---|\n{lines}\n## Next\n\n| `d` | |\n"
            )
        };
        assert_eq!(layers(&table("| `a`, `b` | text of `x` |\n| `c` | |\n")), 0);
        assert_eq!(layers(&table("| `c` | |\n| `a`, `b` | |\n")), 1);
        assert_eq!(layers(&table("| `a` | |\n| `c` | |\n")), 1);
        assert_eq!(layers(&table("| `a`, `b` | |\n")), 1);
        assert_eq!(layers("no table"), 1);
    }
}
