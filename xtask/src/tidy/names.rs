//! Holds names to the nouns of the field: a type or a module whose whole name is
//! a verb form, a pronoun or a question word says nothing to who reads its use.

use std::path::Path;

use syn::visit::{self, Visit};

/// Words that were names here, and what they name now is a noun. Types are
/// compared without regard to case, so a module of that name is refused as well.
const REFUSED: [&str; 42] = [
    "again",
    "aim",
    "arrived",
    "ask",
    "asked",
    "asker",
    "common",
    "crowd",
    "doing",
    "ebb",
    "elsewhere",
    "found",
    "fresh",
    "given",
    "go",
    "gone",
    "intake",
    "known",
    "learnt",
    "looked",
    "luggage",
    "made",
    "marked",
    "marks",
    "now",
    "opened",
    "over",
    "picked",
    "reached",
    "reputation",
    "routed",
    "say",
    "seen",
    "spoke",
    "taken",
    "there",
    "together",
    "told",
    "want",
    "wanted",
    "way",
    "why",
];

/// Reports every type and module of a file that has such a name.
pub fn check(shown: &str, path: &Path, text: &str, mistakes: &mut Vec<String>) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut reader = Reader {
        refused: Vec::from_iter(is_refused(&stem).then(|| stem.into_owned())),
    };
    if let Ok(file) = syn::parse_file(text) {
        reader.visit_file(&file);
    }
    for name in reader.refused {
        mistakes.push(format!(
            "{shown}: `{name}` is no noun: name what it is (pick, attempt, lease, request facts)"
        ));
    }
}

fn is_refused(name: &str) -> bool {
    REFUSED.iter().any(|word| name.eq_ignore_ascii_case(word))
}

struct Reader {
    refused: Vec<String>,
}

impl Reader {
    fn name(&mut self, name: &syn::Ident) {
        let name = name.to_string();
        if is_refused(&name) {
            self.refused.push(name);
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.name(&item.ident);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.name(&item.ident);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.name(&item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.name(&item.ident);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        // A module in a file of its own is refused by the name of the file.
        if item.content.is_some() {
            self.name(&item.ident);
        }
        visit::visit_item_mod(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &str, text: &str) -> usize {
        let mut mistakes = Vec::new();
        check(path, Path::new(path), text, &mut mistakes);
        mistakes.len()
    }

    #[test]
    fn a_type_or_module_that_is_no_noun_is_refused() {
        for text in [
            "struct Asked;",
            "pub enum Want { Any }",
            "pub(crate) trait Told {}",
            "type Seen = u8;",
            "mod inside { struct Given; }",
            "fn outer() { struct Taken; }",
            "mod together {}",
        ] {
            assert_eq!(refused("src/fine.rs", text), 1, "{text}");
        }
        assert_eq!(refused("src/proxy/way.rs", ""), 1);
    }

    #[test]
    fn nouns_variants_and_longer_names_pass() {
        let text = "struct RequestFacts; enum Reply { Given, Kept } fn told(seen: u8) {} struct TakenOver;";
        assert_eq!(refused("src/routing.rs", text), 0);
    }
}
