//! Where this node's missing blocks come from, as the settings have it.
//!
//! The profile `offline` asks nobody, whatever else is set. In the others those gateways and routers are asked that the settings
//! name; the word `auto`, which is their default, stands for the public ones in the profile `public`, and for none elsewhere, so that
//! a node that was told to stay among its own never asks a stranger.

use std::sync::Arc;

use crate::config::{Config, NetworkProfile};
use crate::fetch::gateways::GatewaySource;
use crate::net::Router;
use crate::net::caps::Caps;
use crate::net::http::routing::Routers;
use crate::net::http::{GatewayConfigError, Gateways};

/// The word for the public servers.
const AUTO: &str = "auto";
const PUBLIC_GATEWAYS: [&str; 1] = ["https://trustless-gateway.link"];
const PUBLIC_ROUTERS: [&str; 1] = ["https://delegated-ipfs.dev"];

/// Sets how much may come in and go out in a second.
pub fn set_caps(caps: &Caps, config: &Config) {
    let rate = |bytes: u64| (bytes > 0).then_some(bytes);
    caps.up.set_rate(rate(config.fetch.max_upload_bytes));
    caps.down.set_rate(rate(config.fetch.max_download_bytes));
}

/// The gateways that are asked, where there are any.
pub fn gateways(config: &Config, caps: &Arc<Caps>) -> Result<Option<GatewaySource>, SourcesError> {
    let urls = urls(&config.gateway.urls, &PUBLIC_GATEWAYS, config.network.profile);
    if urls.is_empty() {
        return Ok(None);
    }
    let gateways = Gateways::new(&urls, caps.clone()).map_err(SourcesError::Gateways)?;
    Ok(Some(GatewaySource::new(gateways, config.gateway.head_start)))
}

/// The delegated routers that are asked.
pub fn routers(config: &Config) -> Result<Vec<Arc<dyn Router>>, SourcesError> {
    let urls = urls(&config.routing.urls, &PUBLIC_ROUTERS, config.network.profile);
    if urls.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![Arc::new(Routers::new(&urls).map_err(SourcesError::Routers)?)])
}

fn urls(named: &[String], public: &[&str], profile: NetworkProfile) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    if profile == NetworkProfile::Offline {
        return urls;
    }
    for name in named {
        let stands_for: Vec<&str> = match (name == AUTO, profile) {
            (false, _) => vec![name.as_str()],
            (true, NetworkProfile::Public) => public.to_vec(),
            (true, _) => Vec::new(),
        };
        for url in stands_for {
            if !urls.iter().any(|known| known == url) {
                urls.push(url.to_owned());
            }
        }
    }
    urls
}

/// Why blocks cannot be fetched as the settings have it.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// A gateway of the settings cannot be one.
    #[error("setting gateway.urls: {0}")]
    Gateways(#[source] GatewayConfigError),
    /// A router of the settings cannot be one.
    #[error("setting routing.urls: {0}")]
    Routers(#[source] GatewayConfigError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_profile_asks_those_that_nobody_named() {
        let named = vec!["auto".to_owned(), "http://10.0.0.1:8080".to_owned()];
        let asked = |profile| urls(&named, &PUBLIC_GATEWAYS, profile);
        assert_eq!(asked(NetworkProfile::Public), ["https://trustless-gateway.link", "http://10.0.0.1:8080"]);
        for profile in [NetworkProfile::Lan, NetworkProfile::Private, NetworkProfile::Peers] {
            assert_eq!(asked(profile), ["http://10.0.0.1:8080"]);
            assert!(urls(&["auto".to_owned()], &PUBLIC_ROUTERS, profile).is_empty());
        }
        assert!(asked(NetworkProfile::Offline).is_empty());
    }
}
