//! Writes the man pages and shell completions into a directory: what it is given
//! as its only argument. They come from the types that the command line is
//! parsed with, so they cannot say anything else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_complete::Shell;

/// The shells that Debian has completions for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [directory] = &arguments[..] else {
        eprintln!("usage: ambassador-pages DIRECTORY");
        return ExitCode::from(64);
    };
    let directory = PathBuf::from(directory);
    match write(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    // `help` is no page of its own.
    let command = || ambassador::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command(), directory)?;
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut command(), "ambassador", directory)?;
    }
    Ok(())
}
