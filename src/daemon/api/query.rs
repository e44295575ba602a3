//! What a request asks for: the arguments (`arg`, in order) and options of its query string, as the Kubo RPC API has them.
//!
//! A bad option is the client's mistake: status 400 and a sentence in plain text, as kubo answers it. Options that an
//! endpoint does not know are ignored, as kubo does.

use std::time::Duration;

use axum::extract::{FromRequestParts, Query as Pairs};
use axum::http::request::Parts;

use super::reply::ApiError;
use crate::block::CidForm;

/// The arguments and options of one request.
#[derive(Clone, Debug, Default)]
pub struct Query {
    arguments: Vec<String>,
    options: Vec<(String, String)>,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Query, ApiError> {
        let Pairs(pairs) = Pairs::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|error| ApiError::usage(format!("the query string cannot be read: {error}")))?;
        let mut query = Query::default();
        for (name, value) in pairs {
            if name == "arg" { query.arguments.push(value) } else { query.options.push((name, value)) }
        }
        Ok(query)
    }
}

impl Query {
    /// Every argument, in order.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Every argument, of which there must be one at least; `what` names them to the user.
    pub fn some_arguments(&self, what: &str) -> Result<&[String], ApiError> {
        if self.arguments.is_empty() { Err(missing(what)) } else { Ok(&self.arguments) }
    }

    /// The one argument.
    pub fn argument(&self, what: &str) -> Result<&str, ApiError> {
        self.arguments.first().map(String::as_str).ok_or_else(|| missing(what))
    }

    /// An option's text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// An option that is given more than once, in order.
    pub fn texts(&self, name: &str) -> Vec<&str> {
        self.options.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// Every option, in order.
    pub fn options(&self) -> impl Iterator<Item = (&str, &str)> {
        self.options.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether the option stands in the query.
    pub fn has(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    /// A truth value, as Go reads them; present and empty is true.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, ApiError> {
        match self.text(name) {
            None => Ok(default),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True" | "") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(other) => Err(ApiError::usage(format!("option {name} takes true or false, not {other:?}"))),
        }
    }

    /// A number, where one is given.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.text(name)
            .map(|text| {
                text.parse()
                    .map_err(|_| ApiError::usage(format!("option {name} takes a number in its range, not {text:?}")))
            })
            .transpose()
    }

    /// How the answer is to write CIDs (`cid-base=base58btc`). Links in dag-json have one form only.
    pub fn cid_form(&self) -> Result<CidForm, ApiError> {
        match self.text("cid-base").filter(|name| !name.is_empty()) {
            None => Ok(CidForm::default()),
            Some(name) => name.parse().map_err(|error: String| ApiError::usage(error)),
        }
    }

    /// How long the whole request may take, where the client says so (`timeout=10s`).
    pub fn timeout(&self) -> Result<Option<Duration>, ApiError> {
        self.text("timeout")
            .map(|text| {
                crate::config::parse_span(text)
                    .ok_or_else(|| ApiError::usage(format!("option timeout takes a length of time, not {text:?}")))
            })
            .transpose()
    }
}

fn missing(what: &str) -> ApiError {
    ApiError::usage(format!("argument {what:?} is required"))
}
