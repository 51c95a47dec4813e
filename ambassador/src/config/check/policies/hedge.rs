//! `hedge`: when a second try is made beside a slow one.

use super::Reading;
use crate::config::raw;
use crate::config::read::Spanned;
use crate::policy::hedge::Settings;

pub(super) fn read(raw: &Spanned<raw::Hedge>, settings: &mut Settings, reading: &mut Reading<'_>) {
    if let Some(after) = reading.get("hedge.after", &raw.after) {
        settings.after = after.value.0;
    }
    if let Some(budget) = reading.get("hedge.budget", &raw.budget) {
        settings.budget = budget.value.0;
    }
}
