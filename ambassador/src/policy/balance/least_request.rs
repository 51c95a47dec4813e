//! Least request, by two choices: Mitzenmacher, "The Power of Two Choices in
//! Randomized Load Balancing" (2001). Nearly as even as asking all, and
//! callers that decide at the same time do not all run to the same one.

use super::Candidates;

/// Of two that are drawn by weight, the one with fewer active requests for its
/// weight; the first where they are alike, so that without load it is as a
/// random choice. `active` tells of the endpoint at a place.
pub fn choose(
    candidates: &Candidates,
    active: impl Fn(usize) -> u32,
    random: u64,
) -> Option<usize> {
    let [first, second] = candidates.draw_two(random)?;
    // Active requests divided by weight, compared without the division.
    let load_of_first = u64::from(active(first.place)) * u64::from(second.weight);
    let load_of_second = u64::from(active(second.place)) * u64::from(first.weight);
    let lighter = if load_of_second < load_of_first {
        second
    } else {
        first
    };
    Some(lighter.place)
}
