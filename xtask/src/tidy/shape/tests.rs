use super::*;

fn read(files: &[(&str, &str)]) -> Shape {
    let parsed: Vec<_> = files
        .iter()
        .map(|(file, text)| {
            let syntax = syn::parse_file(text).expect("it is Rust");
            ((*file).to_owned(), syntax)
        })
        .collect();
    shape(&parsed)
}

/// The bare arguments of a file, each with its function.
fn bare(shape: &Shape) -> Vec<(&str, &str)> {
    shape
        .bare
        .iter()
        .map(|bare| (bare.function.as_deref().unwrap_or("|_|"), &*bare.argument))
        .collect()
}

#[test]
fn the_length_is_from_the_signature_to_the_closing_brace() {
    let text = "/// Does.\n#[inline]\nfn long(\n    one: u8,\n) {\n    drop(one);\n}\n";
    let found = read(&[("proxy/routing", text)]);
    assert_eq!(found.functions[0].lines, 5);
    assert!(found.bare.is_empty());
}

#[test]
fn a_name_stands_for_a_tuple_where_it_is_imported() {
    let found = read(&[
        ("app/names", "type Place = (u8, u8); type IsSo = bool;"),
        (
            "proxy/routing",
            "use crate::app::names::{Place, IsSo}; fn a(place: Place, so: IsSo) {}",
        ),
        (
            "proxy/tunnel",
            "use crate::proxy::first::Place; fn b(place: Place) {}",
        ),
    ]);
    assert_eq!(bare(&found), [("a", "place"), ("a", "so")]);
}

#[test]
fn bare_arguments_are_found_by_whatever_name() {
    let found = read(&[(
        "proxy/routing",
        "type Pair<'a> = (&'a u8, u8);
             struct Told(bool);
             impl Told {
                 fn told(&self, (one, two): (u8, u8), may: bool, pair: Pair<'_>) {}
                 fn fine(&self, one: Told, nothing: (), list: &[(u8, u8)]) -> bool { true }
                 fn fine_too(&self, none: Option<Told>, found: Vec<(u8, u8)>) -> (u8, u8) { (1, 2) }
             }
             trait Tells {
                 fn tell(&mut self, is_so: &bool);
                 fn tell_too(&mut self, is_so: bool) {}
             }
             impl From<(u8, u8)> for Told { fn from(pair: (u8, u8)) -> Self { Told(true) } }",
    )]);
    let expected = [
        ("told", "(one, two)"),
        ("told", "may"),
        ("told", "pair"),
        ("tell", "is_so"),
        ("tell_too", "is_so"),
        ("from", "pair"),
    ];
    assert_eq!(bare(&found), expected);
    assert_eq!(found.functions.len(), 6);
}

#[test]
fn what_wraps_a_bare_argument_does_not_name_it() {
    let found = read(&[(
        "policy/retry",
        "fn a(may: Option<bool>, pair: &mut Option<(u8, u8)>, cell: &Cell<bool>) {}
             fn b(result: Result<bool, u8>, shared: std::rc::Rc<(bool)>) {}
             fn fine(some: Option<u8>, cells: &[Cell<bool>]) {}",
    )]);
    let expected = [
        ("a", "may"),
        ("a", "pair"),
        ("a", "cell"),
        ("b", "result"),
        ("b", "shared"),
    ];
    assert_eq!(bare(&found), expected);
}

#[test]
fn closures_name_their_arguments_too() {
    let found = read(&[(
        "upstream/pool",
        "struct Pool { tell: Box<dyn Fn(u8, bool)>, look: fn(pair: (u8, u8)) }
             fn each(mut give: impl FnMut((u8, u8))) {}
             fn every<F>(give: F) where F: FnOnce(Option<bool>) {}
             fn fine(give: impl Fn(&[(u8, u8)]) -> bool) {
                 let told = |may: bool, pair| drop((may, pair));
                 [(1, 2)].map(|(one, two)| one + two);
             }",
    )]);
    let expected = [
        ("|_|", "_"),
        ("|_|", "pair"),
        ("|_|", "_"),
        ("|_|", "_"),
        ("|_|", "may"),
    ];
    assert_eq!(bare(&found), expected);
    assert_eq!(found.bare[1].line, 1);
    assert_eq!(found.bare[4].line, 5);
}

#[test]
fn what_is_compiled_for_tests_is_left_out() {
    let found = read(&[
        ("lib", "#[cfg(test)] mod played; mod real;"),
        ("played", "fn of_a_test(may: bool) {}"),
        ("played/part", "fn of_a_test(may: bool) {}"),
        ("played_not", "fn real(may: bool) {}"),
        (
            "real",
            "#[cfg(test)] mod scene;
                 #[cfg(test)] mod tests { fn of_a_test(it: bool) {} }
                 #[cfg(test)] fn of_a_test(it: bool) {}",
        ),
        ("real/scene", "fn of_a_test(may: bool) {}"),
    ]);
    assert_eq!(bare(&found), [("real", "may")]);
    assert_eq!(found.functions.len(), 1);
}

#[test]
fn long_functions_are_rare_and_in_some_modules_there_are_none() {
    let found = |long: usize, file: &str| {
        let function = |number| Function {
            file: file.to_owned(),
            name: "it".to_owned(),
            lines: 70 + usize::from(number < long),
        };
        let functions: Vec<_> = (0..1_000).map(function).collect();
        let mut mistakes = Vec::new();
        check_lengths(&functions, &mut mistakes);
        mistakes.len()
    };
    assert_eq!(found(3, "config/keys"), 0);
    assert_eq!(found(4, "config/keys"), 1);
    assert_eq!(found(0, "proxy/routing"), 0);
    assert_eq!(found(1, "proxy/routing"), 1);
}
