//! Measures the functions of the library: how long each is, and which of its
//! arguments are a bare `bool` or a tuple, where an enum or a struct would speak.
//!
//! Tests are left out. The length of a function is that of its text, from `fn`
//! to the closing brace.

use std::collections::BTreeSet;
use std::path::Path;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Attribute, FnArg, ImplItemFn, Item, ItemFn, ItemMod, Pat, Signature, TraitItemFn, Type,
    UsePath, UseTree,
};

use super::circles::is_for_tests;
use crate::workspace::Failure;

/// A function of the library.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its file, as `proxy/routing`.
    pub file: String,
    /// Its name.
    pub name: String,
    /// How long it is.
    pub lines: usize,
    /// Names of arguments that are a bare `bool` or a tuple.
    pub bare: Vec<String>,
}

/// Every function of these files but for those of tests.
pub fn of(source: &Path, files: &[impl AsRef<Path>]) -> Result<Vec<Function>, Failure> {
    let mut parsed = Vec::new();
    for path in files.iter().map(AsRef::as_ref) {
        let Ok(inside) = path.strip_prefix(source) else {
            continue;
        };
        let file = inside.with_extension("").display().to_string();
        if file.split('/').any(|part| part == "tests") {
            continue;
        }
        let failed = |error| Failure::File(path.to_owned(), error);
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let syntax = syn::parse_file(&text)
            .map_err(|error| Failure::Check(vec![format!("{file}: {error}")]))?;
        parsed.push((file, syntax));
    }
    Ok(functions(&parsed))
}

fn functions(parsed: &[(String, syn::File)]) -> Vec<Function> {
    let aliases: Vec<Alias> = parsed.iter().flat_map(aliases_of).collect();
    let mut functions = Vec::new();
    for (file, syntax) in parsed {
        let mut reader = Reader {
            file,
            tuples: seen_in(&aliases, file, syntax),
            functions: Vec::new(),
        };
        reader.visit_file(syntax);
        functions.append(&mut reader.functions);
    }
    functions
}

/// A name that stands for a tuple.
struct Alias {
    /// The file that defines it.
    file: String,
    name: String,
}

fn aliases_of((file, syntax): &(String, syn::File)) -> Vec<Alias> {
    let alias = |item: &Item| match item {
        Item::Type(item) if is_tuple(&item.ty) => Some(Alias {
            file: file.clone(),
            name: item.ident.to_string(),
        }),
        _ => None,
    };
    syntax.items.iter().filter_map(alias).collect()
}

fn is_tuple(argument: &Type) -> bool {
    matches!(argument, Type::Tuple(tuple) if !tuple.elems.is_empty())
}

/// The names that stand for a tuple in a file: its own, and those that it imports
/// from the file that defines them.
fn seen_in(aliases: &[Alias], file: &str, syntax: &syn::File) -> BTreeSet<String> {
    let mut imports = Imports::default();
    imports.visit_file(syntax);
    let is_seen = |alias: &&Alias| {
        let module = alias.file.rsplit('/').next().unwrap_or_default();
        let import = (module.to_owned(), alias.name.clone());
        alias.file == file || imports.0.contains(&import)
    };
    let seen = aliases.iter().filter(is_seen);
    seen.map(|alias| alias.name.clone()).collect()
}

/// What a file imports: each name with the module that it is of.
#[derive(Default)]
struct Imports(BTreeSet<(String, String)>);

impl<'ast> Visit<'ast> for Imports {
    fn visit_use_path(&mut self, path: &'ast UsePath) {
        let mut leaves = vec![&*path.tree];
        while let Some(tree) = leaves.pop() {
            match tree {
                UseTree::Name(name) => {
                    let import = (path.ident.to_string(), name.ident.to_string());
                    self.0.insert(import);
                }
                UseTree::Group(group) => leaves.extend(&group.items),
                UseTree::Path(_) | UseTree::Rename(_) | UseTree::Glob(_) => {}
            }
        }
        visit::visit_use_path(self, path);
    }
}

struct Reader<'a> {
    file: &'a str,
    /// Names that stand for a tuple.
    tuples: BTreeSet<String>,
    functions: Vec<Function>,
}

impl Reader<'_> {
    /// Whether an argument of this type says nothing of what it means.
    fn is_bare(&self, argument: &Type) -> bool {
        match argument {
            Type::Reference(reference) => self.is_bare(&reference.elem),
            Type::Path(path) => path.path.segments.last().is_some_and(|last| {
                last.ident == "bool" || self.tuples.contains(&last.ident.to_string())
            }),
            _ => is_tuple(argument),
        }
    }

    fn note(&mut self, signature: &Signature, end: proc_macro2::Span) {
        let bare = signature.inputs.iter().filter_map(|input| match input {
            FnArg::Typed(typed) if self.is_bare(&typed.ty) => Some(shown(&typed.pat)),
            FnArg::Typed(_) | FnArg::Receiver(_) => None,
        });
        self.functions.push(Function {
            file: self.file.to_owned(),
            name: signature.ident.to_string(),
            lines: end.end().line + 1 - signature.span().start().line,
            bare: bare.collect(),
        });
    }
}

/// An argument by its name, or by those of its parts.
fn shown(pattern: &Pat) -> String {
    match pattern {
        Pat::Ident(name) => name.ident.to_string(),
        Pat::Tuple(parts) => {
            let names: Vec<String> = parts.elems.iter().map(shown).collect();
            format!("({})", names.join(", "))
        }
        _ => "_".to_owned(),
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes: &[Attribute] = match item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => &[],
        };
        if !attributes.iter().any(is_for_tests) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !module.attrs.iter().any(is_for_tests) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.note(&function.sig, function.block.span());
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !function.attrs.iter().any(is_for_tests) {
            self.note(&function.sig, function.block.span());
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        let end = function
            .default
            .as_ref()
            .map_or_else(|| function.sig.span(), Spanned::span);
        self.note(&function.sig, end);
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Function> {
        let syntax = syn::parse_file(text).expect("it is Rust");
        functions(&[("proxy/routing".to_owned(), syntax)])
    }

    #[test]
    fn the_length_is_from_the_signature_to_the_closing_brace() {
        let found = read("/// Does.\n#[inline]\nfn long(\n    one: u8,\n) {\n    drop(one);\n}\n");
        assert_eq!(found[0].lines, 5);
        assert!(found[0].bare.is_empty());
    }

    #[test]
    fn a_name_stands_for_a_tuple_where_it_is_imported() {
        let file = |path: &str, text| (path.to_owned(), syn::parse_file(text).expect("it is Rust"));
        let found = functions(&[
            file("app/names", "type Place = (u8, u8);"),
            file(
                "proxy/routing",
                "use crate::app::names::Place; fn a(place: Place) {}",
            ),
            file(
                "proxy/tunnel",
                "use crate::proxy::first::Place; fn b(place: Place) {}",
            ),
        ]);
        assert_eq!(found[0].bare, ["place"]);
        assert!(found[1].bare.is_empty());
    }

    #[test]
    fn bare_arguments_are_found_by_whatever_name() {
        let found = read(
            "type Pair<'a> = (&'a u8, u8);
             struct Told(bool);
             impl Told {
                 fn told(&self, (one, two): (u8, u8), may: bool, pair: Pair<'_>) {}
                 fn fine(&self, one: Told, nothing: (), list: &[(u8, u8)]) -> bool { true }
             }
             trait Tells { fn tell(&mut self, is_so: &bool); }
             #[cfg(test)] mod tests { fn of_a_test(it: bool) {} }",
        );
        let bare: Vec<(&str, Vec<&str>)> = found
            .iter()
            .map(|one| (&*one.name, one.bare.iter().map(|name| &**name).collect()))
            .collect();
        assert_eq!(
            bare,
            [
                ("told", vec!["(one, two)", "may", "pair"]),
                ("fine", vec![]),
                ("tell", vec!["is_so"]),
            ]
        );
    }
}
