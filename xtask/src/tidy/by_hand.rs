//! Holds the table "By hand" of ARCHITECTURE.md against the library: the files
//! that call the C library themselves, and nothing else, stand in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use syn::Expr;
use syn::visit::{self, Visit};

use super::circles;
use crate::workspace::Failure;

/// Where the table stands.
const HEADING: &str = "\n## By hand\n";

/// What is missing in the table, or should not be there any more.
pub fn check(
    source: &Path,
    files: &[PathBuf],
    document: &str,
    mistakes: &mut Vec<String>,
) -> Result<(), Failure> {
    let listed = listed(document);
    let mut calling = BTreeSet::new();
    for path in files {
        let Ok(inside) = path.strip_prefix(source) else {
            continue;
        };
        let failed = |error| Failure::File(path.clone(), error);
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let inside = inside.display().to_string();
        if !inside.contains("tests") && calls_c(&text) {
            calling.insert(inside);
        }
    }
    for file in calling.difference(&listed) {
        mistakes.push(format!(
            "ambassador/src/{file} calls the C library: use rustix, or say why not under \"By hand\" in ARCHITECTURE.md"
        ));
    }
    for file in listed.difference(&calling) {
        mistakes.push(format!(
            "ARCHITECTURE.md: `{file}` under \"By hand\" does not call the C library"
        ));
    }
    Ok(())
}

/// The files of the table: what stands in backticks and ends in `.rs`.
fn listed(document: &str) -> BTreeSet<String> {
    let section = document.split_once(HEADING).map_or("", |(_, rest)| rest);
    let section = section.split("\n## ").next().unwrap_or_default();
    let words = section.lines().filter(|line| line.starts_with('|'));
    let words = words.flat_map(|line| line.split('`'));
    let files = words.filter(|word| word.ends_with(".rs"));
    files.map(str::to_owned).collect()
}

/// Whether a file calls a function of the crate `libc`, outside of its tests.
fn calls_c(text: &str) -> bool {
    let mut calls = Calls::default();
    if let Ok(file) = syn::parse_file(text) {
        calls.visit_file(&file);
    }
    calls.found
}

#[derive(Default)]
struct Calls {
    found: bool,
}

impl<'ast> Visit<'ast> for Calls {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !circles::is_of_tests(item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let Expr::Path(function) = &*call.func {
            let first = function.path.segments.first();
            self.found |= first.is_some_and(|name| name.ident == "libc");
        }
        visit::visit_expr_call(self, call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_and_a_constant_or_a_test_does_not() {
        assert!(calls_c("fn a() { unsafe { libc::getpid() }; }"));
        assert!(!calls_c("fn a() -> i32 { libc::EINVAL }"));
        assert!(!calls_c(
            "#[cfg(test)] mod tests { fn a() { unsafe { libc::getpid() }; } }"
        ));
    }

    #[test]
    fn the_table_names_files() {
        let document = "`a.rs`\n\n## By hand\n\n`b.rs`\n\n| x | `c/d.rs`, `e.rs` | `f` |\n\n## Next\n\n| `g.rs` |\n";
        let expected = ["c/d.rs", "e.rs"].map(str::to_owned);
        assert_eq!(listed(document), BTreeSet::from(expected));
    }
}
