//! The configuration file: read with its line numbers, checked as a whole,
//! handed out as the settings of each area.
//!
//! Each setting is one entry of a group (`policies`; `setting` says how), from which
//! its reader, its checks, its merging, the JSON Schema, `docs/configuration.md`,
//! `/config` and `explain` follow. [`Checked`] is what the rest of the program sees;
//! every value in it is sound. All mistakes are found in one go. Nothing here starts
//! or opens anything but the file.

mod certificates;
pub(crate) mod checked;
mod env;
pub mod explain;
pub(crate) mod fault;
mod file;
mod findings;
mod lookahead;
mod mistakes;
mod policies;
mod read;
#[cfg(test)]
mod reference;
mod reload;
mod restrictions;
mod schema;
mod secrets;
mod setting;
mod values;
mod yaml;

use std::io;
use std::path::Path;

use crate::workload::named;

pub(crate) use certificates::Certificates;
pub(crate) use checked::{ADMIN_LISTEN, Checked};
pub use env::from_env;
pub(crate) use mistakes::{Mistake, Mistakes};
pub(crate) use policies::policies_of;
pub(crate) use schema::schema;
pub(crate) use secrets::shown;

/// A configuration file is at most this long.
const FILE_BYTES_MAX: usize = 4 << 20;

/// Reads and checks a file.
pub(crate) fn load(path: &Path) -> Result<Checked, Mistakes> {
    let name = path.display().to_string();
    let text = read(path).map_err(|what| Mistakes::one(&name, Mistake::of_file(what)))?;
    let mut checked = load_str(&name, &text)?;
    checked.begin_paths_in(path.parent().unwrap_or_else(|| Path::new("")));
    Ok(checked)
}

/// The text of a file, or what is wrong with it as a whole.
fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => match (path.is_absolute(), std::env::current_dir()) {
            (false, Ok(here)) => format!("there is no such file in {}", here.display()),
            _ => "there is no such file".into(),
        },
        io::ErrorKind::IsADirectory => "is a directory: name a file in it".into(),
        io::ErrorKind::PermissionDenied => "this user may not read it".into(),
        io::ErrorKind::InvalidData => "is not text in UTF-8".into(),
        io::ErrorKind::InvalidInput | io::ErrorKind::FileTooLarge => error.to_string(),
        _ => format!("can't be read: {error}"),
    };
    let bytes = named::read(path, FILE_BYTES_MAX).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|_| unreadable(io::ErrorKind::InvalidData.into()))
}

/// Checks a text; `name` stands for the file in messages.
pub fn load_str(name: &str, text: &str) -> Result<Checked, Mistakes> {
    let mut findings = findings::Findings::default();
    let checked = yaml::parse(text, &mut findings)
        .and_then(|root| file::document(&root, &mut findings))
        .map(|file| file::check(&file, &mut findings));
    match checked {
        Some(mut checked) if findings.mistakes.is_empty() => {
            checked.warnings = Mistakes::new(name, findings.warnings);
            Ok(checked)
        }
        _ => Err(Mistakes::new(name, findings.mistakes).and_more(findings.more)),
    }
}

#[cfg(test)]
mod tests;
