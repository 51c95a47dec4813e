//! Connections against each other, and against frames made by hand.

mod cuts;
mod end;
mod ends;
mod exchange;
mod floods;
mod frames;
mod oracle;
mod sections;
mod settings;
mod states;
mod windows;

use ends::*;
