//! Placeholder
use crate::workspace::Failure;
pub fn show() -> Result<(), Failure> {
    Ok(())
}
