//! What is special about a key: for whom it means nothing, and where it may not
//! stand.

/// What is special about a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Restrictions {
    /// It means nothing where bytes are opaque.
    pub(super) of_requests: bool,
    /// It means nothing without `endpoints` or `dns`.
    pub(super) of_endpoints: bool,
    /// A reload cannot change it.
    pub(super) needs_restart: bool,
    /// Why it cannot stand in a route.
    pub(super) not_in_routes: Option<&'static str>,
}

/// Where a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    /// In `defaults`, in an upstream, or where there are no layers.
    Upstream,
    /// In a route.
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

    /// What they say in the reference, after the text of the key.
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
