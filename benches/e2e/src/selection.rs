//! What of everything a run measures: what the command line wants, and this
//! machine can show.

use crate::Arguments;
use crate::placement::Placement;
use crate::process;
use crate::report::Report;
use crate::scenario::{self, Scenario};
use crate::variant::Variant;

/// The scenarios, with what can be had here; the report notes what cannot.
pub fn scenarios(arguments: &Arguments, open_files: u64, report: &mut Report) -> Vec<Scenario> {
    let all = match arguments.quick {
        true => scenario::quick(),
        false => scenario::all(),
    };
    let wanted = |scenario: &Scenario| {
        let text = arguments.scenario.as_deref();
        text.is_none_or(|text| scenario.name.contains(text))
    };
    let mut scenarios = Vec::new();
    for scenario in all.into_iter().filter(wanted) {
        let lacks = scenario.lacks(process::cpus());
        let forced = arguments.force_scaling && scenario.placement == Placement::Scaling;
        match &lacks {
            None => {}
            Some(lack) if forced => report.note(format!("{} tells nothing: {lack}", scenario.name)),
            Some(lack) => {
                report.note(format!("{} is left out: {lack}", scenario.name));
                continue;
            }
        }
        let (name, asked) = (scenario.name, scenario.connections);
        let mut scenario = scenario.within(open_files);
        if scenario.connections < asked {
            report.note(format!(
                "{name}: {} connections, because a process may open {open_files} files",
                scenario.connections
            ));
        }
        scenario.is_only_tried = lacks.is_some();
        scenarios.push(scenario);
    }
    scenarios
}

/// The variants that have something to do.
pub fn variants(arguments: &Arguments, scenarios: &[Scenario]) -> Vec<Variant> {
    let wanted = |variant: &Variant| {
        let text = arguments.variant.as_deref();
        *variant == Variant::Direct || text.is_none_or(|text| variant.name().contains(text))
    };
    let quick = |variant: &Variant| !arguments.quick || variant.is_quick();
    let used = |variant: &Variant| scenarios.iter().any(|scenario| scenario.suits(*variant));
    let all = Variant::all().into_iter().filter(wanted);
    all.filter(quick).filter(used).collect()
}
