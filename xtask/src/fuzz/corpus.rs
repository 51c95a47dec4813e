//! The inputs that are kept in the repository, beside the seeds: those that reach
//! every branch which the runs so far have reached. One file for each target, one
//! input a line: a JSON string of ASCII, of which each character is a byte.

use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace::{self, Failure};

/// Where they are kept.
const KEPT: &str = "ambassador/fuzz/corpus";

/// Longer inputs are not kept.
pub const KEPT_BYTES: u32 = 1024;

/// Puts what is kept for a target where the fuzzer finds it.
pub fn unpack(target: &str, directory: &Path) -> Result<(), Failure> {
    let path = kept(target);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::File(path, error)),
    };
    for (number, line) in text.lines().enumerate() {
        let Some(input) = decode(line) else {
            let place = format!("{}:{}", path.display(), number + 1);
            return Err(Failure::Check(vec![format!("{place}: no input")]));
        };
        let place = directory.join(format!("kept-{number}"));
        fs::write(&place, input).map_err(|error| Failure::File(place, error))?;
    }
    Ok(())
}

/// Keeps the inputs in a directory, the shortest first.
pub fn pack(target: &str, directory: &Path) -> Result<usize, Failure> {
    let failed = |error| Failure::File(directory.to_owned(), error);
    let mut inputs = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        inputs.push(fs::read(entry.map_err(failed)?.path()).map_err(failed)?);
    }
    inputs.sort_by(|one, other| (one.len(), one).cmp(&(other.len(), other)));
    let lines: String = inputs.iter().map(|input| encode(input) + "\n").collect();
    let path = kept(target);
    let parent = workspace::root().join(KEPT);
    fs::create_dir_all(&parent).map_err(|error| Failure::File(parent, error))?;
    fs::write(&path, lines).map_err(|error| Failure::File(path, error))?;
    Ok(inputs.len())
}

fn kept(target: &str) -> PathBuf {
    workspace::root().join(KEPT).join(format!("{target}.txt"))
}

fn encode(input: &[u8]) -> String {
    let text: String = input.iter().map(|&byte| char::from(byte)).collect();
    let json = serde_json::Value::from(text).to_string();
    let ascii = json.chars().map(|character| match character {
        ' '..='~' => character.to_string(),
        other => format!("\\u{:04x}", u32::from(other)),
    });
    ascii.collect()
}

fn decode(line: &str) -> Option<Vec<u8>> {
    let text: String = serde_json::from_str(line).ok()?;
    let bytes = text.chars().map(u8::try_from);
    bytes.collect::<Result<_, _>>().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_kept_on_one_line_of_ascii() {
        let input: Vec<u8> = (0..=255).collect();
        let line = encode(&input);
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        assert_eq!(decode(&line), Some(input));
        assert_eq!(decode("\"\\u0100\""), None);
        assert_eq!(decode("GET"), None);
    }
}
