//! Prints a usage error in a line or two.

/// What is wrong with it and where to look; clap tells the same in six lines.
pub(super) fn complaint(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut said = Vec::new();
    let mut tips = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        }
        if let Some(tip) = line.strip_prefix("tip: ") {
            tips.push(tip.to_owned());
        } else if !line.is_empty() && tips.is_empty() {
            said.push(line.strip_prefix("error: ").unwrap_or(line).to_owned());
        }
    }
    let command = std::env::args().nth(1);
    let known = command.filter(|word| {
        error.kind() != clap::error::ErrorKind::InvalidSubcommand && !word.starts_with('-')
    });
    let known = known.map_or(String::new(), |word| format!(" {word}"));
    let tip = tips.first().map_or(String::new(), |tip| format!("; {tip}"));
    format!(
        "ambassador: {}{tip}\n`ambassador{known} --help` says what it takes",
        said.join(" ")
    )
}
