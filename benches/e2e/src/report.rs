//! What was found: a table, JSON, and a page with plots.

mod judged;
mod page;
mod rows;
mod spread;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;

use self::judged::Judged;
use self::rows::Row;
use self::spread::Spread;
use crate::Arguments;
use crate::memory::Memory;
use crate::sample::Sample;
use crate::scenario::Scenario;
use crate::start_up::{self, StartUp};
use crate::syscalls::Syscalls;
use crate::tls_memory::TlsMemory;
use crate::variant::Variant;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: String,
    rounds: usize,
    seconds: f64,
    scenarios: Vec<Scenario>,
    samples: Vec<Taken>,
    /// What the rounds of each variant in each scenario show.
    rows: Vec<Row>,
    /// What was not measured, or otherwise than its name says, and why.
    notes: Vec<String>,
    /// Of each variant alone.
    pub memory: Vec<(Variant, Memory)>,
    /// Of each variant with TLS alone.
    pub tls_memory: Vec<(Variant, TlsMemory)>,
    /// Bytes of the ambassador's program without symbols.
    pub program_size: Option<u64>,
    /// By variant.
    pub syscalls: Vec<(Variant, Syscalls)>,
    start_up: Option<StartUp>,
    targets: Vec<Judged>,
}

#[derive(Debug, Serialize)]
struct Taken {
    scenario: &'static str,
    variant: Variant,
    round: usize,
    sample: Sample,
}

impl Report {
    /// Nothing yet.
    pub fn new(arguments: &Arguments) -> Self {
        Self {
            machine: machine(),
            rounds: arguments.rounds,
            seconds: arguments.seconds,
            scenarios: Vec::new(),
            samples: Vec::new(),
            rows: Vec::new(),
            notes: Vec::new(),
            memory: Vec::new(),
            tls_memory: Vec::new(),
            program_size: None,
            syscalls: Vec::new(),
            start_up: None,
            targets: Vec::new(),
        }
    }

    /// A variant that cannot stand here.
    pub fn skip(&mut self, variant: Variant, why: &str) {
        self.note(format!("{} is left out: {why}", variant.name()));
    }

    /// Something that the figures do not tell.
    pub fn note(&mut self, note: String) {
        eprintln!("{note}");
        self.notes.push(note);
    }

    /// One more sample.
    pub fn add(&mut self, scenario: &Scenario, variant: Variant, round: usize, sample: Sample) {
        if !self
            .scenarios
            .iter()
            .any(|known| known.name == scenario.name)
        {
            self.scenarios.push(scenario.clone());
        }
        self.samples.push(Taken {
            scenario: scenario.name,
            variant,
            round,
            sample,
        });
    }

    /// Time to the first answer.
    pub fn start_up(&mut self, binaries: &Path, load: &Path, rounds: usize) {
        match start_up::measure(binaries, load, rounds) {
            Ok(times) => self.start_up = Some(times),
            Err(why) => eprintln!("start-up: {why}"),
        }
    }

    /// Judges, prints and writes.
    pub fn finish(mut self, directory: &Path) -> Result<(), String> {
        self.rows = self.all_rows();
        self.targets = Judged::all(&self);
        println!("{}", table::text(&self));
        let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
        fs::create_dir_all(directory).map_err(failed)?;
        let json = serde_json::to_string_pretty(&self).map_err(|error| error.to_string())?;
        fs::write(directory.join("report.json"), json).map_err(failed)?;
        fs::write(directory.join("report.html"), page::html(&self)).map_err(failed)?;
        if let Some(summary) = page::summary(&self) {
            fs::write(directory.join("summary.svg"), summary).map_err(failed)?;
        }
        eprintln!("written to {}", directory.display());
        Ok(())
    }

    fn find(&self, scenario: &str, variant: Variant, round: usize) -> Option<&Sample> {
        let mut samples = self.samples.iter();
        let taken = samples.find(|taken| {
            taken.scenario == scenario && taken.variant == variant && taken.round == round
        })?;
        Some(&taken.sample)
    }

    /// In the order of the table.
    fn all_rows(&self) -> Vec<Row> {
        let scenarios = self.scenarios.iter().map(|scenario| scenario.name);
        let places = scenarios.flat_map(|scenario| {
            let variants = Variant::all().into_iter();
            variants.map(move |variant| (scenario, variant))
        });
        places
            .filter_map(|(scenario, variant)| {
                let rounds: Vec<&Sample> = (0..self.rounds)
                    .filter_map(|round| self.find(scenario, variant, round))
                    .collect();
                (!rounds.is_empty()).then(|| Row::new(scenario, variant, &rounds))
            })
            .collect()
    }

    /// The rows of a scenario.
    fn rows_of(&self, scenario: &str) -> impl Iterator<Item = &Row> {
        let rows = self.rows.iter();
        rows.filter(move |row| row.scenario == scenario)
    }

    /// How many samples were taken again, and how many stayed disturbed.
    fn disturbed(&self) -> (u32, usize) {
        let repeats = self.samples.iter().map(|taken| taken.sample.repeats).sum();
        let disturbed = self
            .samples
            .iter()
            .filter(|taken| taken.sample.foreign > 0.05);
        (repeats, disturbed.count())
    }
}

/// CPU, number of CPUs and kernel.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let fields: BTreeMap<&str, &str> = cpus
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    let count = cpus
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    format!(
        "{count} x {}, Linux {}",
        fields.get("model name").unwrap_or(&"?"),
        read("/proc/sys/kernel/osrelease").trim()
    )
}
