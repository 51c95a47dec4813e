//! The ambassador's own policies between simulated callers and upstreams.
//!
//! A scenario is a few kinds of events on a [`Timeline`]: time is virtual, chance
//! comes from a seed, and nothing does I/O, so that a run is the same wherever
//! and however often it is made. The decisions are those of
//! `ambassador::testing::policy`; everything around them is a model.
//!
//! - [`timeline`]: the virtual clock and what is to happen when
//! - [`upstream`]: servers, a queue, outages, and a cold start
//! - [`scenarios`]: one each
//! - [`plot`]: what they show, as SVG
//!
//! [`Timeline`]: timeline::Timeline

pub mod plot;
pub mod scenarios;
pub mod timeline;
pub mod upstream;
