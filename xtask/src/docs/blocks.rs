//! The fenced blocks of a Markdown document.

/// A block with what is to be done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// `README.md:13`, of its opening fence.
    pub place: String,
    /// What it is.
    pub kind: Kind,
    /// Its lines.
    pub text: String,
}

/// What a block is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Commands.
    Shell,
    /// Commands that cannot run here, and why.
    LeftOut(String),
    /// A configuration file of this name.
    File(String),
    /// Something to read.
    Other,
}

impl Block {
    /// Whether it says why it does not run.
    pub fn is_left_out(&self) -> bool {
        matches!(self.kind, Kind::LeftOut(_))
    }
}

/// Every block of a document, or every mistake in it.
pub fn of(name: &str, text: &str) -> Result<Vec<Block>, Vec<String>> {
    let (mut blocks, mut mistakes) = (Vec::new(), Vec::new());
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            continue;
        };
        let place = format!("{name}:{}", number + 1);
        let mut text = String::new();
        let mut is_closed = false;
        for (_, line) in lines.by_ref() {
            if line.trim_end() == "```" {
                is_closed = true;
                break;
            }
            text.push_str(line);
            text.push('\n');
        }
        if !is_closed {
            mistakes.push(format!("{place}: the block has no end"));
        }
        match kind(info.trim(), &text) {
            Ok(kind) => blocks.push(Block { place, kind, text }),
            Err(what) => mistakes.push(format!("{place}: {what}")),
        }
    }
    match mistakes.is_empty() {
        true => Ok(blocks),
        false => Err(mistakes),
    }
}

fn kind(info: &str, text: &str) -> Result<Kind, String> {
    let (language, rest) = info.split_once(' ').unwrap_or((info, ""));
    match (language, rest.trim()) {
        ("", _) => Err("say what the block is: sh, yaml, json, text".into()),
        ("sh", "") => Ok(Kind::Shell),
        ("sh", rest) => match rest.strip_prefix("no-run:").map(str::trim) {
            Some(reason) if !reason.is_empty() => Ok(Kind::LeftOut(reason.to_owned())),
            _ => Err(format!(
                "write `sh`, or `sh no-run: REASON`, in place of `{info}`"
            )),
        },
        ("bash" | "shell" | "console", _) => Err(format!("write `sh` in place of `{language}`")),
        ("yaml", _) => {
            let first = text.lines().next().unwrap_or_default();
            let file = first.strip_prefix("# ").filter(|name| is_file_name(name));
            Ok(file.map_or(Kind::Other, |name| Kind::File(name.to_owned())))
        }
        _ => Ok(Kind::Other),
    }
}

fn is_file_name(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    name.ends_with(".yaml") && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_told_apart_by_their_info_string() {
        let text = "text\n```sh\na\nb\n```\n```sh no-run: it takes an hour\nc\n```\n\
                    ```yaml\n# egress.yaml\nd: 1\n```\n```yaml\ne: 1\n```\n```json\n{}\n```\n";
        let blocks = of("a.md", text).unwrap();
        let kinds: Vec<_> = blocks.iter().map(|block| block.kind.clone()).collect();
        let reason = "it takes an hour".to_owned();
        let file = "egress.yaml".to_owned();
        assert_eq!(
            kinds,
            [
                Kind::Shell,
                Kind::LeftOut(reason),
                Kind::File(file),
                Kind::Other,
                Kind::Other,
            ]
        );
        assert_eq!(
            (blocks[0].place.as_str(), blocks[0].text.as_str()),
            ("a.md:2", "a\nb\n")
        );
        assert!(blocks[1].is_left_out());
    }

    #[test]
    fn a_block_that_says_nothing_of_itself_is_a_mistake() {
        for text in [
            "```\na\n```\n",
            "```sh no-run\na\n```\n",
            "```sh no-run:\na\n```\n",
            "```bash\na\n```\n",
            "```sh\na\n",
        ] {
            assert_eq!(of("a.md", text).unwrap_err().len(), 1, "{text}");
        }
    }
}
