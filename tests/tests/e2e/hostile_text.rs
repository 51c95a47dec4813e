//! What a peer or a file says moves no cursor and begins no line, wherever it is
//! shown.

use std::time::Duration;

use ambassador_tests::proxy::{ambassador, one_upstream};
use ambassador_tests::{Call, Column, Proxy, eventually, matrix, ports, program};

use crate::access_log::{LOGGED, lines};

matrix!(logs_show_it_as_numbers,);

/// C1, override of direction, separators of lines, no width.
const HOSTILE: &str = "\u{9b}31m\u{202e}\u{2028}\u{2029}\u{feff}\u{2066}";

#[track_caller]
fn is_plain(text: &str) {
    let hostile = |c: char| c != '\n' && (c.is_control() || HOSTILE[2..].contains(c) && c > '~');
    let found: Vec<char> = text.chars().filter(|c| hostile(*c)).collect();
    assert!(found.is_empty(), "{found:?} in {text:?}");
}

fn logs_show_it_as_numbers(column: Column) {
    let server = column.ok();
    let listen = ([127, 0, 0, 1], ports::free()).into();
    let config = one_upstream(listen, server.address(), "");
    let proxy = Proxy::start(column, &format!("{LOGGED}{config}"));
    let id = format!("a{HOSTILE}");
    let call = Call::get(&format!("/{HOSTILE}")).field("x-request-id", &id);
    assert_eq!(column.connect(listen).call(&call).status, 200);
    assert_eq!(lines(&proxy, 1)[0]["request_id"], id);
    is_plain(&proxy.log());

    // As does a file that a running proxy refuses.
    let keys = format!("\"a\\e[2J{HOSTILE}\\nINFO forged\": \"\\e]0;x\\a{HOSTILE}\"\n");
    proxy.rewrite_config(&format!("{config}{keys}spin: \"{HOSTILE}\\nforged\"\n"));
    let told = || proxy.log().contains("must be one of");
    eventually("it is refused", Duration::from_secs(5), told);
    is_plain(&proxy.log());
    let log = proxy.log();
    assert!(
        log.lines().all(|line| line.starts_with(['2', '{'])),
        "{log}"
    );

    let file = proxy.config_file();
    let output = program::output(ambassador(column).arg("check").arg(&file));
    assert_eq!(output.status.code(), Some(78));
    is_plain(&String::from_utf8_lossy(&output.stderr));
    proxy.rewrite_config(&config);
    let asked = format!("http://{HOSTILE}/");
    let mut explain = ambassador(column);
    explain
        .arg("explain")
        .arg("--config")
        .arg(&file)
        .arg(&asked);
    let output = program::output(&mut explain);
    assert_eq!(output.status.code(), Some(64));
    is_plain(&String::from_utf8_lossy(&output.stderr));
}
