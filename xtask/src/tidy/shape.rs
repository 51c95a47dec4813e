//! Measures the functions of the library: how long each is, and where one, or a
//! closure that is taken or kept, has an argument that is a bare `bool` or a tuple,
//! where an enum or a struct would speak.
//!
//! Tests are left out. The length of a function is that of its text, from `fn`
//! to the closing brace.

use std::collections::BTreeSet;
use std::path::Path;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Attribute, ExprClosure, FnArg, GenericArgument, ImplItemFn, Item, ItemFn, ItemMod,
    ParenthesizedGenericArguments, Pat, PathArguments, PathSegment, Signature, TraitItemFn, Type,
    TypeBareFn, UsePath, UseTree,
};

use super::circles::is_for_tests;
use super::rust_files;
use crate::workspace::{self, Failure};

/// A function longer than this does not fit on a screen.
const FUNCTION_LINES_MAX: usize = 70;

/// Modules without any that is longer.
const SHORT_FUNCTIONS: [&str; 4] = ["policy", "proxy", "ring", "upstream"];

/// How many functions of a thousand may be longer elsewhere.
const LONG_FUNCTIONS_PER_MILLE: usize = 3;

/// Modules whose functions take neither a bare `bool` nor a tuple.
const NAMED_ARGUMENTS: [&str; 3] = ["policy", "proxy", "upstream"];

/// What holds or lends one value: a `bool` in it is as bare as without.
const WRAPPERS: [&str; 8] = [
    "Arc", "Box", "Cell", "Option", "Poll", "Rc", "RefCell", "Result",
];

/// Long functions are rare, and arguments have names that speak.
pub fn check(mistakes: &mut Vec<String>) -> Result<(), Failure> {
    let source = workspace::root().join("ambassador/src");
    let shape = of(&source, &rust_files(&source)?)?;
    check_lengths(&shape.functions, mistakes);
    for bare in &shape.bare {
        if !NAMED_ARGUMENTS.contains(&top_of(&bare.file)) {
            continue;
        }
        let Bare {
            file,
            line,
            argument,
            ..
        } = bare;
        let who = bare.function.as_deref().map_or_else(
            || "a closure".to_owned(),
            |function| format!("`{function}`"),
        );
        mistakes.push(format!(
            "{file}.rs:{line}: {who} takes a bare `bool` or a tuple: {argument}"
        ));
    }
    Ok(())
}

/// The share of long functions, which is printed.
fn check_lengths(functions: &[Function], mistakes: &mut Vec<String>) {
    let is_long = |function: &&Function| function.lines > FUNCTION_LINES_MAX;
    let long: Vec<&Function> = functions.iter().filter(is_long).collect();
    for Function { file, name, lines } in &long {
        if SHORT_FUNCTIONS.contains(&top_of(file)) {
            mistakes.push(format!(
                "{file}.rs: `{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}"
            ));
        }
    }
    let found = format!(
        "{} of {} functions have more than {FUNCTION_LINES_MAX} lines",
        long.len(),
        functions.len()
    );
    println!("{found}");
    let most = functions.len() * LONG_FUNCTIONS_PER_MILLE / 1_000;
    if long.len() > most {
        let names = long.iter().map(|one| format!("{}::{}", one.file, one.name));
        let names = names.collect::<Vec<_>>().join(", ");
        mistakes.push(format!("{found}, at most {most}: {names}"));
    }
}

/// The module of the library that a file belongs to.
fn top_of(file: &str) -> &str {
    file.split('/').next().unwrap_or_default()
}

/// The functions of the library, and its bare arguments.
#[derive(Debug, Default)]
struct Shape {
    functions: Vec<Function>,
    bare: Vec<Bare>,
}

/// A function of the library.
#[derive(Debug)]
struct Function {
    /// Its file, as `proxy/routing`.
    file: String,
    /// Its name.
    name: String,
    /// How long it is.
    lines: usize,
}

/// An argument that is a bare `bool` or a tuple.
#[derive(Debug)]
struct Bare {
    /// The file, as `proxy/routing`.
    file: String,
    /// The line of it.
    line: usize,
    /// The name of the function that takes it; of a closure there is none.
    function: Option<String>,
    /// Its own name, as far as it has one.
    argument: String,
}

/// The shape of these files, but for those of tests.
fn of(source: &Path, files: &[impl AsRef<Path>]) -> Result<Shape, Failure> {
    let mut parsed = Vec::new();
    for path in files.iter().map(AsRef::as_ref) {
        let Ok(inside) = path.strip_prefix(source) else {
            continue;
        };
        let file = inside.with_extension("").display().to_string();
        let failed = |error| Failure::File(path.to_owned(), error);
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let syntax = syn::parse_file(&text)
            .map_err(|error| Failure::Check(vec![format!("{file}: {error}")]))?;
        parsed.push((file, syntax));
    }
    Ok(shape(&parsed))
}

fn shape(parsed: &[(String, syn::File)]) -> Shape {
    let aliases: Vec<Alias> = parsed.iter().flat_map(aliases_of).collect();
    let of_tests: BTreeSet<String> = parsed.iter().flat_map(test_modules_of).collect();
    let mut shape = Shape::default();
    for (file, syntax) in parsed {
        let mut above = file.char_indices().filter(|(_, letter)| *letter == '/');
        if of_tests.contains(file) || above.any(|(end, _)| of_tests.contains(&file[..end])) {
            continue;
        }
        let mut reader = Reader {
            file,
            bare: seen_in(&aliases, file, syntax),
            shape: &mut shape,
        };
        reader.visit_file(syntax);
    }
    shape
}

/// The files of modules that are compiled for tests alone.
fn test_modules_of((file, syntax): &(String, syn::File)) -> Vec<String> {
    let module = |item: &Item| match item {
        Item::Mod(item) if item.attrs.iter().any(is_for_tests) => Some(match file.as_str() {
            "lib" | "main" => item.ident.to_string(),
            parent => format!("{parent}/{}", item.ident),
        }),
        _ => None,
    };
    syntax.items.iter().filter_map(module).collect()
}

/// A name that stands for a tuple or a `bool`.
struct Alias {
    /// The file that defines it.
    file: String,
    name: String,
}

fn aliases_of((file, syntax): &(String, syn::File)) -> Vec<Alias> {
    let alias = |item: &Item| match item {
        Item::Type(item) if is_bare(&item.ty, &BTreeSet::new()) => Some(Alias {
            file: file.clone(),
            name: item.ident.to_string(),
        }),
        _ => None,
    };
    syntax.items.iter().filter_map(alias).collect()
}

/// Whether an argument of this type says nothing of what it means; `aliases` are
/// names that stand for such a type.
fn is_bare(argument: &Type, aliases: &BTreeSet<String>) -> bool {
    match argument {
        Type::Group(inner) => is_bare(&inner.elem, aliases),
        Type::Paren(inner) => is_bare(&inner.elem, aliases),
        Type::Reference(reference) => is_bare(&reference.elem, aliases),
        Type::Tuple(tuple) => !tuple.elems.is_empty(),
        Type::Path(path) => path.path.segments.last().is_some_and(|last| {
            last.ident == "bool"
                || aliases.contains(&last.ident.to_string())
                || holds_bare(last, aliases)
        }),
        _ => false,
    }
}

fn holds_bare(segment: &PathSegment, aliases: &BTreeSet<String>) -> bool {
    let PathArguments::AngleBracketed(inside) = &segment.arguments else {
        return false;
    };
    let is_wrapper = WRAPPERS.iter().any(|wrapper| segment.ident == wrapper);
    is_wrapper
        && inside.args.iter().any(
            |argument| matches!(argument, GenericArgument::Type(held) if is_bare(held, aliases)),
        )
}

/// The names that stand for such a type in a file: its own, and those that it imports
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
    /// Names that stand for a tuple or a `bool`.
    bare: BTreeSet<String>,
    shape: &'a mut Shape,
}

impl Reader<'_> {
    fn note(&mut self, signature: &Signature, end: proc_macro2::Span) {
        for input in &signature.inputs {
            if let FnArg::Typed(typed) = input {
                let name = Some(signature.ident.to_string());
                self.note_argument(name, &typed.ty, shown(&typed.pat));
            }
        }
        self.shape.functions.push(Function {
            file: self.file.to_owned(),
            name: signature.ident.to_string(),
            lines: end.end().line + 1 - signature.span().start().line,
        });
    }

    fn note_argument(&mut self, function: Option<String>, of: &Type, argument: String) {
        if is_bare(of, &self.bare) {
            self.shape.bare.push(Bare {
                file: self.file.to_owned(),
                line: of.span().start().line,
                function,
                argument,
            });
        }
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
        Pat::Type(typed) => shown(&typed.pat),
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

    fn visit_expr_closure(&mut self, closure: &'ast ExprClosure) {
        for input in &closure.inputs {
            if let Pat::Type(typed) = input {
                self.note_argument(None, &typed.ty, shown(input));
            }
        }
        visit::visit_expr_closure(self, closure);
    }

    fn visit_parenthesized_generic_arguments(
        &mut self,
        closure: &'ast ParenthesizedGenericArguments,
    ) {
        for input in &closure.inputs {
            self.note_argument(None, input, "_".to_owned());
        }
        visit::visit_parenthesized_generic_arguments(self, closure);
    }

    fn visit_type_bare_fn(&mut self, pointer: &'ast TypeBareFn) {
        for input in &pointer.inputs {
            let name = input.name.as_ref();
            let name = name.map_or_else(|| "_".to_owned(), |(name, _)| name.to_string());
            self.note_argument(None, &input.ty, name);
        }
        visit::visit_type_bare_fn(self, pointer);
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
mod tests;
