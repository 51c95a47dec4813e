//! The configuration file: read with its line numbers, checked as a whole,
//! handed out as the settings of each area.
//!
//! Two layers. `raw` mirrors the file, refuses unknown keys and is the source
//! of the JSON Schema and of `docs/configuration.md`. [`Checked`] is what the
//! rest of the program sees; every value in it is sound. All mistakes are
//! found in one go. Nothing here starts or opens anything but the file.

mod check;
pub mod checked;
mod effective;
mod env;
pub mod explain;
mod mistakes;
mod raw;
mod read;
mod reference;
mod reload;
mod values;
mod yaml;

use std::path::Path;

pub use check::ADMIN_LISTEN;
pub use checked::Checked;
pub use effective::policies_of;
pub use env::from_env;
pub use mistakes::{Mistake, Mistakes};
pub use reference::{reference, schema};

/// A configuration file is at most this long.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads and checks a file.
pub fn load(path: &Path) -> Result<Checked, Mistakes> {
    let name = path.display().to_string();
    let unreadable = |what: String| Mistakes::one(&name, Mistake::of_file(what));
    let length = std::fs::metadata(path)
        .map_err(|error| unreadable(format!("can't be read: {error}")))?
        .len();
    if length > FILE_BYTES_MAX {
        return Err(unreadable(format!("is longer than {FILE_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| unreadable(format!("can't be read: {error}")))?;
    load_str(&name, &text)
}

/// Checks a text; `name` stands for the file in messages.
pub fn load_str(name: &str, text: &str) -> Result<Checked, Mistakes> {
    let mut found = read::Found::default();
    let checked = yaml::parse(text, &mut found)
        .and_then(|root| read::document(&root, &mut found))
        .map(|file| check::check(&file, &mut found));
    match checked {
        Some(mut checked) if found.mistakes.is_empty() => {
            checked.warnings = Mistakes::new(name, found.warnings);
            Ok(checked)
        }
        _ => Err(Mistakes::new(name, found.mistakes)),
    }
}

#[cfg(test)]
mod tests;
