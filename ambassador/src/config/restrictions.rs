//! Restrictions of a key: for which protocols and upstreams it has a meaning,
//! where it may be written, and whether a change needs a restart.

/// Restrictions of a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Restrictions {
    /// It applies to requests only, not to opaque bytes.
    pub(super) of_requests: bool,
    /// It needs `endpoints` or `dns`.
    pub(super) of_endpoints: bool,
    /// A change needs a restart.
    pub(super) needs_restart: bool,
    /// Why a route cannot have it.
    pub(super) not_in_routes: Option<&'static str>,
}

/// The section that a key is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    /// `defaults`, an upstream, or a section without layers.
    Upstream,
    /// A route.
    Route,
}

impl Restrictions {
    pub(super) const NONE: Self = Self {
        of_requests: false,
        of_endpoints: false,
        needs_restart: false,
        not_in_routes: None,
    };

    pub(super) const fn of_requests(mut self) -> Self {
        self.of_requests = true;
        self
    }

    pub(super) const fn of_endpoints(mut self) -> Self {
        self.of_endpoints = true;
        self
    }

    pub(super) const fn needs_restart(mut self) -> Self {
        self.needs_restart = true;
        self
    }

    pub(super) const fn not_in_routes(mut self, why: &'static str) -> Self {
        self.not_in_routes = Some(why);
        self
    }

    /// Their text in the reference, after that of the key.
    pub(super) fn text(self) -> String {
        let said = [
            (self.of_requests, " Not for `protocol: tcp`."),
            (self.of_endpoints, " Needs `endpoints` or `dns`."),
            (self.not_in_routes.is_some(), " Not for routes."),
            (self.needs_restart, " A change needs a restart."),
        ];
        let said = said.into_iter().filter(|(is_so, _)| *is_so);
        said.map(|(_, text)| text).collect()
    }

    pub(super) fn allows(self, section: Section) -> bool {
        section == Section::Upstream || self.not_in_routes.is_none()
    }
}
