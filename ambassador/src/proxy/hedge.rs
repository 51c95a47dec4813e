//! A second try beside a slow one.
