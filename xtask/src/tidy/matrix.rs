//! A test of the matrix of end-to-end tests names no protocol: the next one
//! becomes a column without a change to it. Nor does it lose its column on the way to
//! the proxy, which would then speak HTTP/1 whatever the test is called.

use syn::spanned::Spanned;
use syn::{Item, ItemFn};

/// What speaks HTTP/1, or has no protocol of its own.
const OF_ONE_PROTOCOL: [&str; 6] = [
    "HTTP/1",
    "Client::",
    "Server::http",
    "Server::ok",
    "Server::start",
    "Backend",
];

/// What makes a column one of HTTP/1.
const LOST: &str = "column.backend";

/// Reports the tests of this file that stand in `matrix!` and name a protocol.
pub fn check(shown: &str, text: &str, mistakes: &mut Vec<String>) {
    let Ok(syntax) = syn::parse_file(text) else {
        return;
    };
    let names: Vec<String> = syntax.items.iter().flat_map(in_matrix).collect();
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        if line.contains(LOST) {
            let number = number + 1;
            mistakes.push(format!("{shown}:{number}: `{LOST}` loses the protocols"));
        }
    }
    for item in &syntax.items {
        match item {
            Item::Fn(function) if names.contains(&function.sig.ident.to_string()) => {
                check_test(shown, &lines, function, mistakes);
            }
            _ => {}
        }
    }
}

/// The names that `matrix!` is given.
fn in_matrix(item: &Item) -> Vec<String> {
    match item {
        Item::Macro(item) if item.mac.path.is_ident("matrix") => {
            let names = item.mac.tokens.to_string();
            let names = names.split(',').map(str::trim);
            names.map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

fn check_test(shown: &str, lines: &[&str], test: &ItemFn, mistakes: &mut Vec<String>) {
    let span = test.span();
    let (name, first) = (&test.sig.ident, test.sig.span().start().line);
    for number in first..=span.end().line {
        let line = lines.get(number - 1).copied().unwrap_or_default();
        for word in OF_ONE_PROTOCOL {
            if line.contains(word) {
                mistakes.push(format!(
                    "{shown}:{number}: `{name}` is of the matrix and names a protocol: `{word}`"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_not_lost() {
        let mut mistakes = Vec::new();
        let text = "fn start(column: Column) {\n    Proxy::start(column.backend, CONFIG);\n}\n";
        check("e2e/it.rs", text, &mut mistakes);
        let told = "e2e/it.rs:2: `column.backend` loses the protocols";
        assert_eq!(mistakes, [told.to_owned()]);
    }

    #[test]
    fn a_test_of_the_matrix_names_no_protocol() {
        let text = "matrix!(one, two,);\n\
                    on_http1!(three);\n\
                    fn one(column: Column) { column.ok(); }\n\
                    fn two(column: Column) {\n\
                    \x20   Client::connect(listen).send(\"GET / HTTP/1.1\");\n\
                    }\n\
                    fn three(backend: Backend) { Server::ok(); }\n";
        let mut mistakes = Vec::new();
        check("e2e/it.rs", text, &mut mistakes);
        let told = "e2e/it.rs:5: `two` is of the matrix and names a protocol";
        assert_eq!(
            mistakes,
            [format!("{told}: `HTTP/1`"), format!("{told}: `Client::`")]
        );
    }
}
