//! Methods of requests, as routes and retries name them.

use crate::config::found::Found;
use crate::config::read::Spanned;
use crate::config::values::Text;

/// Longer methods than any registered one (RFC 9110 section 9.1 sets no limit).
const METHOD_BYTES_MAX: usize = 32;

/// The names of a list, each of them once.
pub(super) fn list(list: &[Spanned<Text>], found: &mut Found) -> Vec<String> {
    let mut methods: Vec<String> = Vec::new();
    for method in list {
        check(method, found);
        if methods.contains(&method.value.0) {
            found.mistake_at(method, "stands there twice");
        }
        methods.push(method.value.0.clone());
    }
    methods
}

fn check(method: &Spanned<Text>, found: &mut Found) {
    let text = &method.value.0;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let sound = !text.is_empty() && text.len() <= METHOD_BYTES_MAX && text.bytes().all(token);
    if !sound {
        found.mistake_at(method, "is no request method");
    } else if text.bytes().any(|b| b.is_ascii_lowercase()) {
        let upper = text.to_ascii_uppercase();
        found.mistake_at(method, format!("methods have case, did you mean {upper}?"));
    }
}
