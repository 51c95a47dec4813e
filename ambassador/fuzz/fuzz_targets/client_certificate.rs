//! The field that tells of a client's certificate, whose URIs are whatever somebody has
//! signed: it is one element of printable ASCII with as many parts as there are.

#![no_main]

use ambassador::testing::proxy::client_certificate::element;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let uris: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let field = element(uris.first().map(String::as_str), bytes, &uris);
    assert!(field.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    let (mut quoted, mut escaped, mut keys) = (false, false, vec![String::new()]);
    let mut in_key = true;
    for c in field.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            // Another element.
            ',' => assert!(quoted),
            ';' if !quoted => {
                keys.push(String::new());
                in_key = true;
            }
            '=' if in_key => in_key = false,
            '=' => assert!(quoted),
            c if in_key => keys.last_mut().expect("there is one").push(c),
            _ => {}
        }
    }
    assert!(!quoted && !escaped);
    let mut expected = vec!["By", "Hash"];
    expected.resize(2 + uris.len(), "URI");
    assert_eq!(keys, expected);
});
