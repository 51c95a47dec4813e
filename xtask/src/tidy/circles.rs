//! Finds files of the library that import each other, by whatever way round.
//!
//! A file may use the module that it is a part of: those are one noun in two
//! files. A name that a file only passes on leads to where it is defined. Tests
//! import what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

use crate::workspace::Failure;

/// A module by its path in the crate; each is a file.
type Module = Vec<String>;

/// What a file says of others.
#[derive(Default)]
struct File {
    /// Paths that it uses, from the root of the crate.
    used: BTreeSet<Vec<String>>,
    /// Names that it passes on, and what they stand for.
    passed_on: BTreeMap<String, Vec<String>>,
}

/// Sets of files that import each other, each in order, as `proxy/routing`.
pub fn of(source: &Path, files: &[impl AsRef<Path>]) -> Result<Vec<Vec<String>>, Failure> {
    let mut modules = BTreeMap::new();
    for path in files.iter().map(AsRef::as_ref) {
        let Ok(inside) = path.strip_prefix(source) else {
            continue;
        };
        let module = module_of(inside);
        if module.iter().any(|name| name == "tests") {
            continue;
        }
        let failed = |error| Failure::File(path.to_owned(), error);
        let text = std::fs::read_to_string(path).map_err(failed)?;
        modules.insert(module, text);
    }
    let read = modules.into_iter().map(|(module, text)| {
        let parsed = syn::parse_file(&text);
        let parsed = parsed.map_err(|error| {
            let shown = module.join("/");
            Failure::Check(vec![format!("{shown}: {error}")])
        })?;
        let file = File::read(&module, &parsed);
        Ok((module, file))
    });
    Ok(circles(&read.collect::<Result<_, Failure>>()?))
}

/// `proxy/routing.rs` is `proxy::routing`, `lib.rs` the root.
fn module_of(inside: &Path) -> Module {
    let inside = inside.with_extension("");
    let names = inside
        .iter()
        .map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name != "lib").collect()
}

fn circles(files: &BTreeMap<Module, File>) -> Vec<Vec<String>> {
    let mut graph: DiGraphMap<&[String], ()> = DiGraphMap::new();
    for (module, file) in files {
        for used in &file.used {
            let owner = owner(files, used, 0);
            if !module.starts_with(owner) {
                graph.add_edge(module.as_slice(), owner, ());
            }
        }
    }
    let mut circles: Vec<Vec<String>> = tarjan_scc(&graph)
        .into_iter()
        .filter(|component| component.len() > 1)
        .map(|component| component.iter().map(|module| module.join("/")).collect())
        .collect();
    circles.iter_mut().for_each(|circle| circle.sort());
    circles.sort();
    circles
}

/// The file in which what a path names is defined.
fn owner<'a>(files: &'a BTreeMap<Module, File>, path: &[String], depth: usize) -> &'a [String] {
    /// Longer chains of names passed on do not occur.
    const DEPTH_MAX: usize = 8;
    let lengths = (0..=path.len()).rev();
    let mut known = lengths.filter_map(|length| files.get_key_value(&path[..length]));
    let Some((module, file)) = known.next() else {
        return &[];
    };
    let passed_on = path
        .get(module.len())
        .and_then(|name| file.passed_on.get(name));
    match passed_on {
        Some(origin) if depth < DEPTH_MAX => {
            let further = &path[module.len() + 1..];
            owner(files, &[origin, further].concat(), depth + 1)
        }
        _ => module,
    }
}

impl File {
    fn read(module: &Module, parsed: &syn::File) -> Self {
        let mut reader = Reader {
            module,
            children: children(parsed),
            file: Self::default(),
        };
        reader.visit_file(parsed);
        reader.file
    }
}

/// Modules that a file declares: a path may begin with one.
fn children(parsed: &syn::File) -> BTreeSet<String> {
    let names = parsed.items.iter().filter_map(|item| match item {
        Item::Mod(child) if child.content.is_none() => Some(child.ident.to_string()),
        _ => None,
    });
    names.collect()
}

struct Reader<'a> {
    module: &'a Module,
    children: BTreeSet<String>,
    file: File,
}

impl Reader<'_> {
    /// From the root of the crate; `None`: it is of another crate, or local.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let first = path.first()?;
        let (mut base, mut rest) = match first.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (self.module.clone(), &path[1..]),
            "super" => (self.module.clone(), path),
            child if self.children.contains(child) => (self.module.clone(), path),
            _ => return None,
        };
        while rest.first().is_some_and(|name| name == "super") {
            base.pop();
            rest = &rest[1..];
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    fn note(&mut self, tree: &UseTree, before: &mut Vec<String>, passes_on: bool) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.note(&path.tree, before, passes_on);
                before.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.note(tree, before, passes_on);
                }
            }
            UseTree::Name(name) => self.note_name(name.ident.to_string(), None, before, passes_on),
            UseTree::Rename(rename) => {
                let (name, known_as) = (rename.ident.to_string(), rename.rename.to_string());
                self.note_name(name, Some(known_as), before, passes_on);
            }
            UseTree::Glob(_) => self.file.used.extend(self.absolute(before)),
        }
    }

    fn note_name(
        &mut self,
        name: String,
        known_as: Option<String>,
        before: &[String],
        passes_on: bool,
    ) {
        let own = name == "self";
        let known_as = known_as.unwrap_or_else(|| match own {
            true => before.last().cloned().unwrap_or_default(),
            false => name.clone(),
        });
        let mut path = before.to_vec();
        path.extend((!own).then_some(name));
        let Some(path) = self.absolute(&path) else {
            return;
        };
        match passes_on {
            true => drop(self.file.passed_on.insert(known_as, path)),
            false => drop(self.file.used.insert(path)),
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_of_tests(item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !module.attrs.iter().any(is_for_tests) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let passes_on = !matches!(item.vis, Visibility::Inherited);
        self.note(&item.tree, &mut Vec::new(), passes_on);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if names.len() > 1 {
            self.file.used.extend(self.absolute(&names));
        }
        visit::visit_path(self, path);
    }
}

/// Whether an item is compiled for tests alone.
pub(super) fn is_of_tests(item: &Item) -> bool {
    attributes(item).iter().any(is_for_tests)
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// `#[cfg(test)]`, and the like.
pub(super) fn is_for_tests(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute
            .parse_args::<syn::Path>()
            .is_ok_and(|what| what.is_ident("test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let read = files.iter().map(|(path, text)| {
            let module = module_of(Path::new(path));
            let parsed = syn::parse_file(text).expect("it is Rust");
            let file = File::read(&module, &parsed);
            (module, file)
        });
        circles(&read.collect())
    }

    #[test]
    fn files_that_import_each_other_are_a_circle() {
        let found = circles_of(&[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "use crate::{c::C, std};"),
            ("c.rs", "fn c() { super::a::a() }"),
            ("d.rs", "use crate::a::A;"),
        ]);
        assert_eq!(found, [["a", "b", "c"]]);
    }

    #[test]
    fn a_name_that_is_passed_on_leads_to_where_it_is_defined() {
        let found = circles_of(&[
            ("a.rs", "mod inner; pub use inner::Inner; use crate::b::B;"),
            ("a/inner.rs", "pub struct Inner;"),
            ("b.rs", "use crate::a::Inner;"),
        ]);
        assert!(found.is_empty(), "{found:?}");
        let found = circles_of(&[
            ("a.rs", "mod inner; pub use inner::Inner;"),
            ("a/inner.rs", "use crate::b::B;"),
            ("b.rs", "use crate::a::Inner;"),
        ]);
        assert_eq!(found, [["a/inner", "b"]]);
    }

    #[test]
    fn tests_import_what_they_like() {
        let found = circles_of(&[
            (
                "a.rs",
                "use crate::b::B; #[cfg(test)] mod tests { use crate::c::C; }",
            ),
            ("b.rs", "#[cfg(test)] use crate::a::A;"),
            ("c.rs", "use super::a::A;"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }
}
