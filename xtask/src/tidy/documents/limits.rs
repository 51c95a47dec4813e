//! Holds the table "Limits" of README.md against the constants of the code: each
//! row names its numbers as the constants have them.

use std::collections::BTreeMap;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{BinOp, Expr, ItemConst, Lit};

use crate::workspace::Failure;

/// How a constant is written in the table.
#[derive(Debug, Clone, Copy)]
enum Unit {
    /// `16,384`.
    Count,
    /// `80 KiB`.
    Bytes,
    /// `250 ms`, of a `Duration`.
    Time,
    /// `1 s`, of nanoseconds.
    Nanoseconds,
}

use Unit::{Bytes, Count, Nanoseconds, Time};

/// Where a constant is, its name, and how it is written.
type Constant = (&'static str, &'static str, Unit);

/// The constants of each row, by its first cell.
const ROWS: [(&str, &[Constant]); 27] = [
    (
        "destinations in use at a time, counted for each captured cgroup",
        &[(EBPF, "SLOTS", Count), (EBPF, "SLOTS_CLAIMED_ONLY", Count)],
    ),
    (
        "rules in the kernel, two generations",
        &[(EBPF, "RULES_MAX", Count)],
    ),
    (
        "upstreams with `kernel_fail_fast`",
        &[("ambassador/src/capture/circuits.rs", "MAX", Count)],
    ),
    (
        "open files",
        &[
            (
                "ambassador/src/shard/descriptors.rs",
                "KEPT_BACK_MIN",
                Count,
            ),
            (
                "ambassador/src/shard/descriptors.rs",
                "KEPT_BACK_MAX",
                Count,
            ),
        ],
    ),
    (
        "adopted upstreams",
        &[("ambassador/src/proxy/adopted.rs", "ADOPTED_MAX", Count)],
    ),
    (
        "head of a message",
        &[
            ("ambassador/src/message.rs", "HEAD_BYTES_MAX", Bytes),
            ("ambassador/src/message/fields.rs", "FIELDS_MAX", Count),
            ("ambassador/src/message/fields.rs", "NAMED_MAX", Count),
        ],
    ),
    (
        "empty lines before a request or response",
        &[
            (
                "ambassador/src/http1/request.rs",
                "LEADING_LINES_MAX",
                Count,
            ),
            (
                "ambassador/src/http1/response.rs",
                "LEADING_LINES_MAX",
                Count,
            ),
        ],
    ),
    (
        "chunk extension, blanks before it / trailers",
        &[
            ("ambassador/src/http1/body.rs", "EXTENSION_BYTES_MAX", Bytes),
            ("ambassador/src/http1/body.rs", "TRAILER_BYTES_MAX", Bytes),
        ],
    ),
    (
        "wait for the first bytes of a captured connection",
        &[("ambassador/src/proxy/accepted.rs", "SNIFF_WAIT", Time)],
    ),
    (
        "wait for more of them, where they could become HTTP or TLS",
        &[("ambassador/src/proxy/first_bytes.rs", "SNIFF_MORE", Time)],
    ),
    (
        "server-first destinations remembered, per shard; for how long",
        &[
            ("ambassador/src/proxy/server_first.rs", "PLACES_MAX", Count),
            ("ambassador/src/proxy/server_first.rs", "KEPT", Time),
        ],
    ),
    (
        "unread request bytes read after an early reply; for how long",
        &[
            ("ambassador/src/proxy/client.rs", "LINGER_BYTES_MAX", Bytes),
            ("ambassador/src/proxy/client.rs", "LINGER_TIME_MAX", Time),
        ],
    ),
    (
        "pause of an upload after a whole response",
        &[("ambassador/src/proxy/upload.rs", "FINISH_SILENCE_MAX", Time)],
    ),
    (
        "unread bytes of a stream; bytes of one send",
        &[
            ("ambassador/src/ring.rs", "RECEIVED_MAX", Bytes),
            ("ambassador/src/ring/chunk.rs", "SENT_AT_ONCE", Bytes),
        ],
    ),
    (
        "receive buffers per shard; size of one",
        &[
            ("ambassador/src/ring/buffers.rs", "COUNT", Count),
            ("ambassador/src/ring/buffers.rs", "SIZE", Bytes),
        ],
    ),
    (
        "chunks in one send",
        &[("ambassador/src/ring/chunk.rs", "GATHER_MAX", Count)],
    ),
    (
        "accepted sockets waiting, per listener and shard; kernel backlog",
        &[
            ("ambassador/src/ring/table/socket.rs", "ACCEPTED_MAX", Count),
            ("ambassador/src/workload/sockets.rs", "BACKLOG", Count),
        ],
    ),
    (
        "messages to a shard",
        &[("ambassador/src/ring/mailbox.rs", "MAIL_MAX", Count)],
    ),
    (
        "pause after accept found no descriptors",
        &[("ambassador/src/ring/listener.rs", "ACCEPT_REST", Time)],
    ),
    (
        "access log buffer per shard; one value in it",
        &[
            (
                "ambassador/src/telemetry/access_log/writer.rs",
                "BUFFER_BYTES_MAX",
                Bytes,
            ),
            (
                "ambassador/src/telemetry/access_log/line.rs",
                "VALUE_BYTES_MAX",
                Bytes,
            ),
        ],
    ),
    (
        "bytes of a TLS handshake from a peer; sessions kept for resumption, per upstream",
        &[
            ("ambassador/src/tls/handshake.rs", "BYTES_MAX", Bytes),
            ("ambassador/src/tls/resumption.rs", "TICKETS_MAX", Count),
        ],
    ),
    (
        "file of certificates; file of a key",
        &[
            ("ambassador/src/control/certificates.rs", "BYTES_MAX", Bytes),
            (
                "ambassador/src/control/certificates.rs",
                "KEY_BYTES_MAX",
                Bytes,
            ),
        ],
    ),
    (
        "token or password; requests that wait for the first one of an upstream",
        &[
            (
                "ambassador/src/credential/token.rs",
                "TOKEN_BYTES_MAX",
                Bytes,
            ),
            (
                "ambassador/src/upstream/credential.rs",
                "WAITING_MAX",
                Count,
            ),
        ],
    ),
    (
        "DNS time to live",
        &[
            ("ambassador/src/control/dns.rs", "TTL_MIN", Time),
            ("ambassador/src/control/dns.rs", "TTL_MAX", Time),
        ],
    ),
    (
        "heartbeat; stale after; shards with one",
        &[
            ("ambassador/src/shard.rs", "HEARTBEAT_EVERY", Time),
            (EBPF, "STALE_NS", Nanoseconds),
            (EBPF, "HEARTBEATS", Count),
        ],
    ),
    (
        "admin connections; head; time for a head",
        &[
            ("ambassador/src/control/admin/places.rs", "PLACES", Count),
            ("ambassador/src/control/admin.rs", "HEAD_BYTES_MAX", Bytes),
            ("ambassador/src/control/admin.rs", "HEAD_WITHIN", Time),
        ],
    ),
    (
        "configuration file; nesting",
        &[
            ("ambassador/src/config.rs", "FILE_BYTES_MAX", Bytes),
            ("ambassador/src/config/yaml.rs", "DEPTH_MAX", Count),
        ],
    ),
];

/// The contract with the kernel side.
const EBPF: &str = "ambassador-ebpf/src/lib.rs";

/// Reports every row that is not listed or missing, and every constant that its
/// row does not name.
pub fn check(root: &Path, readme: &str, mistakes: &mut Vec<String>) -> Result<(), Failure> {
    let rows = table(readme);
    for name in rows.keys() {
        if !ROWS.iter().any(|(row, _)| row == name) {
            mistakes.push(format!(
                "README.md: no constant is known for the limit \"{name}\": xtask/src/tidy/documents/limits.rs lists them"
            ));
        }
    }
    for (row, constants) in ROWS {
        let Some(text) = rows.get(row) else {
            mistakes.push(format!("README.md: the limit \"{row}\" is missing"));
            continue;
        };
        for (file, name, unit) in constants {
            let path = root.join(file);
            let code = std::fs::read_to_string(&path);
            let code = code.map_err(|error| Failure::File(path, error))?;
            match value(&code, name) {
                None => mistakes.push(format!("{file} has no constant {name}")),
                Some(value) if names(text, &written(value, *unit)) => {}
                Some(value) => {
                    let number = written(value, *unit);
                    mistakes.push(format!(
                        "README.md: the limit \"{row}\" does not say {number} ({name} in {file})"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// The rows of the table under "Limits": first cell and second.
fn table(readme: &str) -> BTreeMap<&str, &str> {
    let section = readme
        .split_once("\n## Limits\n")
        .map_or("", |(_, rest)| rest);
    let section = section.split("\n## ").next().unwrap_or_default();
    let lines = section.lines().filter_map(|line| line.strip_prefix("| "));
    let rows = lines.filter_map(|line| line.strip_suffix(" |")?.split_once(" | "));
    rows.skip(1).collect()
}

/// Whether a text names a number, not as a part of another.
fn names(text: &str, number: &str) -> bool {
    let is_part = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
    text.match_indices(number).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + number.len()..]);
        let continues = after.starts_with(',') && is_part(after.chars().nth(1));
        let begins = !is_part(before.chars().next_back()) && !before.ends_with(',');
        begins && !continues && !is_part(after.chars().next())
    })
}

fn written(value: u64, unit: Unit) -> String {
    match unit {
        Count => {
            let digits = value.to_string();
            let mut out = String::new();
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index).is_multiple_of(3) {
                    out.push(',');
                }
                out.push(digit);
            }
            out
        }
        Bytes => scaled(value, &[(1 << 20, "MiB"), (1 << 10, "KiB"), (1, "bytes")]),
        // A `Duration` is read in milliseconds.
        Time => scaled(value, &[(60_000, "min"), (1_000, "s"), (1, "ms")]),
        Nanoseconds => written(value / 1_000_000, Time),
    }
}

/// In the largest unit that leaves no rest.
fn scaled(value: u64, units: &[(u64, &str)]) -> String {
    let fits = |(unit, _): &&(u64, &str)| value >= *unit && value.is_multiple_of(*unit);
    let (unit, name) = units.iter().find(fits).unwrap_or(&(1, ""));
    format!("{} {name}", value / unit)
}

/// What a constant of a file is: a number, or a `Duration` in milliseconds.
fn value(code: &str, name: &str) -> Option<u64> {
    let file = syn::parse_file(code).ok()?;
    let mut constants = Constants::default();
    constants.visit_file(&file);
    evaluate(constants.0.get(name)?, &constants.0)
}

#[derive(Default)]
struct Constants<'ast>(BTreeMap<String, &'ast Expr>);

impl<'ast> Visit<'ast> for Constants<'ast> {
    fn visit_item_const(&mut self, item: &'ast ItemConst) {
        self.add(&item.ident, &item.expr);
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.add(&item.ident, &item.expr);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.ident != "tests" {
            visit::visit_item_mod(self, item);
        }
    }
}

impl<'ast> Constants<'ast> {
    fn add(&mut self, name: &syn::Ident, value: &'ast Expr) {
        self.0.entry(name.to_string()).or_insert(value);
    }
}

fn evaluate(value: &Expr, known: &BTreeMap<String, &Expr>) -> Option<u64> {
    match value {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Int(number) => number.base10_parse().ok(),
            _ => None,
        },
        Expr::Paren(inner) => evaluate(&inner.expr, known),
        Expr::Cast(cast) => evaluate(&cast.expr, known),
        Expr::Path(path) => {
            let name = path.path.segments.last()?.ident.to_string();
            match known.get(&name) {
                Some(value) => evaluate(value, known),
                None => shared(&name),
            }
        }
        Expr::Binary(both) => {
            let (left, right) = (evaluate(&both.left, known)?, evaluate(&both.right, known)?);
            match both.op {
                BinOp::Add(_) => left.checked_add(right),
                BinOp::Sub(_) => left.checked_sub(right),
                BinOp::Mul(_) => left.checked_mul(right),
                BinOp::Div(_) => left.checked_div(right),
                BinOp::Shl(_) => left.checked_shl(u32::try_from(right).ok()?),
                _ => None,
            }
        }
        Expr::Call(call) => {
            let Expr::Path(function) = &*call.func else {
                return None;
            };
            let number = evaluate(call.args.first()?, known)?;
            match function.path.segments.last()?.ident.to_string().as_str() {
                "from_millis" => Some(number),
                "from_secs" => number.checked_mul(1_000),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Constants that files of the table take from another one.
fn shared(name: &str) -> Option<u64> {
    let root = crate::workspace::root();
    let file = match name {
        "CIRCUITS" => EBPF,
        "SIZE" => "ambassador/src/ring/buffers.rs",
        _ => return None,
    };
    value(&std::fs::read_to_string(root.join(file)).ok()?, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn constants_are_read_as_the_compiler_reads_them() {
        let code = "const A: u32 = 1 << 4; const B: usize = 3 * (A as usize - 6);
            const C: Duration = Duration::from_secs(5 * 60); impl X { pub const D: u16 = 7; }
            mod tests { const A: u32 = 9; }";
        let of = |name| value(code, name);
        assert_eq!(
            [of("A"), of("B"), of("C"), of("D")],
            [16, 30, 300_000, 7].map(Some)
        );
        assert_eq!([of("E"), value("const A: u8 = f();", "A")], [None, None]);
    }

    #[test]
    fn numbers_are_written_as_in_the_table() {
        assert_eq!(written(16_384, Count), "16,384");
        assert_eq!(written(999, Count), "999");
        assert_eq!(written(80 << 10, Bytes), "80 KiB");
        assert_eq!(written(256, Bytes), "256 bytes");
        assert_eq!(written(250, Time), "250 ms");
        assert_eq!(written(300_000, Time), "5 min");
        assert_eq!(written(1_000_000_000, Nanoseconds), "1 s");
        assert!(names("80 KiB, 256 fields", "256") && names("16,384 slots", "16,384"));
        assert!(!names("16,384 slots", "384") && !names("1,024", "1") && !names("2560", "256"));
    }

    #[test]
    fn a_row_without_a_constant_and_a_wrong_number_are_reported() {
        let root = workspace::root();
        let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
        let found = |readme: &str| {
            let mut mistakes = Vec::new();
            check(&root, readme, &mut mistakes).unwrap();
            mistakes
        };
        assert_eq!(found(&readme), Vec::<String>::new());
        let row = "| messages to a shard | 1,024 |\n";
        assert!(readme.contains(row));
        assert_eq!(found(&readme.replace(row, "")).len(), 1);
        assert_eq!(
            found(&readme.replace(row, &row.replace("24", "25"))).len(),
            1
        );
        let more = format!("{row}| stars in the sky | 7 |\n");
        assert_eq!(found(&readme.replace(row, &more)).len(), 1);
    }
}
