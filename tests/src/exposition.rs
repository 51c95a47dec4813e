//! What `/metrics` said, read as the text format is written: a label is a name
//! and a value, not a part of a line.

/// Every sample, in the order of the text.
#[derive(Debug, Clone, Default)]
pub struct Exposition(Vec<Sample>);

/// One line that is not a comment.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name of the metric, with the suffix of a histogram's part.
    pub name: String,
    /// Names and values, escapes undone.
    pub labels: Vec<(String, String)>,
    /// The number.
    pub value: f64,
}

impl Exposition {
    /// Reads a text; what is no sample is left out.
    pub fn parse(text: &str) -> Exposition {
        Exposition(text.lines().filter_map(Sample::parse).collect())
    }

    /// All samples of a metric.
    pub fn samples<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Sample> {
        let name = name.to_owned();
        self.0.iter().filter(move |sample| sample.name == name)
    }

    /// The sum of the samples of a metric that have all of these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has_all = |sample: &&Sample| {
            let mut wanted = labels.iter();
            wanted.all(|(name, value)| sample.label(name) == Some(value))
        };
        self.samples(name)
            .filter(has_all)
            .map(|sample| sample.value)
            .sum()
    }

    /// The value of a label of the first sample of a metric.
    pub fn label(&self, name: &str, label: &str) -> Option<&str> {
        self.samples(name).next()?.label(label)
    }
}

impl Sample {
    /// The value of a label, where it is there.
    pub fn label(&self, name: &str) -> Option<&str> {
        let mut labels = self.labels.iter();
        let found = labels.find(|(label, _)| label == name);
        found.map(|(_, value)| value.as_str())
    }

    fn parse(line: &str) -> Option<Sample> {
        if line.starts_with('#') {
            return None;
        }
        let end = line.find(['{', ' '])?;
        let (name, rest) = line.split_at(end);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(inside) => labels(inside)?,
            None => (Vec::new(), rest),
        };
        // A time or an exemplar may follow.
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Sample {
            name: name.to_owned(),
            labels,
            value,
        })
    }
}

/// The labels up to the brace that closes them, and what follows it.
fn labels(mut text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let (value, rest) = quoted(rest)?;
        labels.push((name.to_owned(), value));
        text = rest;
    }
}

/// A value up to the quote that ends it, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match letters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}
