//! What other implementations have encoded, and what the encoder here makes of it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;

/// A case of a story.
struct Case {
    wire: Vec<u8>,
    list: List,
    table_max: Option<u32>,
}

fn stories() -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/hpack");
    let entries = |path: &Path| {
        let entries = fs::read_dir(path).expect("a directory");
        entries.map(|entry| entry.expect("an entry").path())
    };
    let encoders = entries(&top).filter(|path| path.is_dir());
    let stories: Vec<PathBuf> = encoders.flat_map(|encoder| entries(&encoder)).collect();
    assert_eq!(stories.len(), 96);
    stories
}

fn cases(story: &Path) -> Vec<Case> {
    let text = fs::read_to_string(story).expect("a file");
    let story: Value = serde_json::from_str(&text).expect("JSON");
    let cases = story["cases"].as_array().expect("cases").iter();
    let case = |case: &Value| Case {
        wire: hex(case["wire"].as_str().expect("digits")),
        list: list_of(&case["headers"]),
        table_max: case["header_table_size"].as_u64().map(|max| max as u32),
    };
    cases.map(case).collect()
}

fn list_of(headers: &Value) -> List {
    let headers = headers.as_array().expect("headers").iter();
    let headers = headers.flat_map(|header| header.as_object().expect("a header"));
    let text = |value: &Value| value.as_str().expect("a value").to_owned();
    headers
        .map(|(name, value)| (name.clone(), text(value)))
        .collect()
}

#[test]
fn every_story_is_decoded_exactly() {
    let mut count = 0;
    for story in stories() {
        let mut decoder = Decoder::new(16_384);
        let mut block = large_block();
        for (number, case) in cases(&story).into_iter().enumerate() {
            let outcome = decoder.decode(&case.wire, &mut block);
            assert_eq!(outcome, Ok(()), "{} {number}", story.display());
            assert_eq!(list(&block), case.list, "{} {number}", story.display());
            count += 1;
        }
    }
    assert_eq!(count, 840);
}

#[test]
fn every_story_is_encoded_and_decoded_again() {
    let (mut theirs, mut ours) = (0, 0);
    for story in stories() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::new(4_096));
        let mut block = large_block();
        for (number, case) in cases(&story).into_iter().enumerate() {
            if let Some(max) = case.table_max {
                encoder.set_table_max(max);
            }
            let wire = encoded(&mut encoder, &case.list);
            let outcome = decoder.decode(&wire, &mut block);
            assert_eq!(outcome, Ok(()), "{} {number}", story.display());
            assert_eq!(list(&block), case.list, "{} {number}", story.display());
            theirs += case.wire.len();
            ours += wire.len();
        }
    }
    // Theirs have Huffman coding, but for one of the eight.
    assert!(ours < 2 * theirs, "{ours} bytes, theirs {theirs}");
}
