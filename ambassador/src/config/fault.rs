//! Faults in one word, as `exec --fault` takes them.

use super::policies::{DELAY_SECONDS_MAX, STATUS_MAX, STATUS_MIN};
use super::read::Scalar;
use super::values::{Percent, Time, is_token, number};
use crate::addr::Authority;
use crate::policy::fault::{Abort, Delay, Settings};

const WANTED: &str = "must be a list of abort=STATUS:SHARE, delay=TIME:SHARE, reset:SHARE \
                      and header=NAME, as abort=503:10%,delay=200ms:5%,reset:1%";

/// Reads `abort=503:10%,delay=200ms:5%,reset:1%`; a share that is not there is
/// all. `authority` is whom they are for alone.
pub(crate) fn from_words(spec: &str, authority: Option<&str>) -> Result<Settings, String> {
    let mut settings = Settings::default();
    if let Some(text) = authority {
        let parsed = text.parse::<Authority>();
        let what = || format!("--fault-for must be a host, with or without a port, got {text}");
        settings.authority = Some(parsed.map_err(|_| what())?);
    }
    let mut seen = Vec::new();
    for word in spec.split(',').map(str::trim) {
        let kind = word.split(['=', ':']).next().unwrap_or_default();
        if seen.contains(&kind) {
            return Err(format!("--fault has {kind} twice"));
        }
        seen.push(kind);
        one(word, kind, &mut settings).map_err(|what| format!("--fault {what}, got {word}"))?;
    }
    match settings.exceeds_all() {
        true => Err("--fault: abort and reset are more than 100% together".to_owned()),
        false => Ok(settings),
    }
}

fn one(word: &str, kind: &str, settings: &mut Settings) -> Result<(), String> {
    let rest = &word[kind.len()..];
    let of_kind = |what: String| format!("{kind}: {what}");
    // What stands after the equals sign, and the share.
    let value_and_share = || {
        let rest = rest.strip_prefix('=').ok_or_else(|| WANTED.to_owned())?;
        let (value, share) = rest.split_once(':').unwrap_or((rest, "100%"));
        Ok::<_, String>((value, Percent::parse(share).map_err(of_kind)?.0))
    };
    match kind {
        "abort" => {
            let (status, share) = value_and_share()?;
            let known =
                number::<u32>(status).filter(|status| (STATUS_MIN..=STATUS_MAX).contains(status));
            let status = known.ok_or_else(|| {
                of_kind(format!("status must be from {STATUS_MIN} to {STATUS_MAX}"))
            })? as u16;
            settings.abort = Some(Abort { status, share });
        }
        "delay" => {
            let (wait, share) = value_and_share()?;
            let Time(wait) = Time::parse(wait).map_err(of_kind)?;
            if wait.is_zero() || wait.as_secs() > DELAY_SECONDS_MAX {
                return Err(of_kind(
                    "must be longer than zero, and at most 5m".to_owned(),
                ));
            }
            settings.delay = Some(Delay { wait, share });
        }
        "reset" => {
            let share = rest.strip_prefix([':', '=']).unwrap_or("100%");
            settings.reset = Percent::parse(share).map_err(of_kind)?.0;
        }
        "header" => {
            let name = rest.strip_prefix('=').unwrap_or_default();
            if !is_token(name) {
                return Err(of_kind("is no header name".to_owned()));
            }
            settings.header = Some(name.to_ascii_lowercase().into());
        }
        _ => return Err(WANTED.to_owned()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn faults_are_read() {
        let read =
            from_words("abort=503:10%,delay=200ms:5%,reset:1%", Some("api.test:80")).unwrap();
        let expected = Settings {
            abort: Some(Abort {
                status: 503,
                share: 0.1,
            }),
            delay: Some(Delay {
                wait: Duration::from_millis(200),
                share: 0.05,
            }),
            reset: 0.01,
            authority: Some("api.test:80".parse().unwrap()),
            ..Settings::default()
        };
        assert_eq!(read, expected);
        let read = from_words("reset, header=X-Fault", None).unwrap();
        assert_eq!((read.reset, read.header.as_deref()), (1.0, Some("x-fault")));
        assert_eq!(
            from_words("abort=500", None).unwrap().abort.unwrap().share,
            1.0
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (spec, authority, wanted) in [
            ("", None, "--fault must be a list"),
            ("abort", None, "--fault must be a list"),
            ("latency=1s", None, "--fault must be a list"),
            (
                "abort=503:10",
                None,
                "--fault abort: must be a percentage from 0% to 100%, got",
            ),
            (
                "abort=200:10%",
                None,
                "--fault abort: status must be from 400 to 599, got",
            ),
            (
                "delay=5:5%",
                None,
                "--fault delay: must be a whole number and a unit",
            ),
            (
                "delay=1h:5%",
                None,
                "--fault delay: must be longer than zero, and at most 5m",
            ),
            ("reset:1%,reset:2%", None, "--fault has reset twice"),
            (
                "abort=500:60%,reset:41%",
                None,
                "--fault: abort and reset are more than 100%",
            ),
            ("header=a b", None, "--fault header: is no header name"),
            ("reset:1%", Some("a/b"), "--fault-for must be a host"),
        ] {
            let what = from_words(spec, authority).unwrap_err();
            assert!(what.starts_with(wanted), "{spec}: {what}");
        }
    }
}
