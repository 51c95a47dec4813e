//! A command that prints a token.

use std::sync::Arc;
use std::time::Duration;

use super::token::{SourceError, Token};
use crate::clock;
use crate::control::reading::Reader;
use crate::credential::{Material, Secret, token};
use crate::workload::Commands;
use crate::workload::commands::RUNS_WITHIN;

/// Longer than a command may take: the runner tells what went wrong.
const ANSWERS_WITHIN: Duration = RUNS_WITHIN.saturating_add(Duration::from_secs(2));

/// A command that prints a token.
pub(super) struct CommandSource {
    words: Vec<String>,
    ttl: Duration,
    commands: Arc<Commands>,
    reader: Reader,
}

impl CommandSource {
    /// One that `commands` knows, whose token is valid for `ttl`.
    pub(super) fn new(words: &[String], ttl: Duration, commands: &Arc<Commands>) -> Self {
        Self {
            words: words.to_vec(),
            ttl,
            commands: Arc::clone(commands),
            reader: Reader::within(ANSWERS_WITHIN),
        }
    }

    /// The program.
    pub(super) fn program(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Runs it.
    ///
    /// # Errors
    /// It fails, or prints what is no token.
    pub(super) async fn fetch(&mut self) -> Result<Token, SourceError> {
        let (commands, words) = (Arc::clone(&self.commands), self.words.clone());
        let run = self.reader.read(move || {
            let printed = commands.run(&words)?;
            Ok(token::without_line_end(Secret::from(printed.to_vec())))
        });
        let token = run.await.map_err(SourceError::Command)?;
        Ok(Token {
            value: Material::Secret(token.map_err(SourceError::Unusable)?),
            expires: Some(clock::now() + self.ttl),
        })
    }
}
