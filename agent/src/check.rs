//! One thing that was looked at before it is needed, and what came of it.

use std::future::Future;

use serde::Serialize;

use crate::failure::{Exit, Failure};

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// As it should be.
    Good,
    /// It works and somebody should think about it.
    Warning,
    /// It will fail, or lose data.
    Problem,
    /// It could not be found out.
    CouldNotTell,
    /// The settings do not say enough to look.
    NotChecked,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What came of it.
    pub found: Found,
    /// What was seen, and what to do.
    pub detail: String,
}

impl Check {
    /// As it should be.
    pub fn good(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, found: Found::Good, detail: detail.into() }
    }

    /// It works and somebody should think about it.
    pub fn warning(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, found: Found::Warning, detail: detail.into() }
    }

    /// It will fail, or lose data.
    pub fn problem(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, found: Found::Problem, detail: detail.into() }
    }

    /// The settings do not say enough to look.
    pub fn not_checked(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, found: Found::NotChecked, detail: detail.into() }
    }

    /// Good with a detail, or as bad as the failure says.
    pub async fn of(name: &'static str, made: impl Future<Output = Result<String, Failure>> + Send) -> Self {
        match made.await {
            Ok(detail) => Self::good(name, detail),
            Err(e) => {
                let found = if e.exit == Exit::CouldNotTell { Found::CouldNotTell } else { Found::Problem };
                Self { name, found, detail: e.message }
            }
        }
    }
}
