//! How natsctl's own HTTP requests connect: with TLS and through proxies in a natsctl that was built with AWS, which brings both.

use hyper::Uri;

use crate::error::Hinted;

/// Connects to HTTP servers.
#[cfg(feature = "aws")]
pub(crate) type Connector = crate::image::registry::Connector;
/// Connects to HTTP servers, without TLS.
#[cfg(not(feature = "aws"))]
pub(crate) type Connector = hyper_util::client::legacy::connect::HttpConnector;

/// Connects through the proxy that HTTPS_PROXY, ALL_PROXY and NO_PROXY name.
///
/// # Errors
/// The roots that servers are trusted by cannot be read.
#[cfg(feature = "aws")]
pub(crate) fn connector() -> anyhow::Result<Connector> {
    crate::image::registry::connector()
}

/// Connects without a proxy.
///
/// # Errors
/// None; with AWS there may be.
#[cfg(not(feature = "aws"))]
pub(crate) fn connector() -> anyhow::Result<Connector> {
    Ok(Connector::new())
}

/// Refuses what is no address of a server that this natsctl can connect to; `what` should be there, for example ``a gateway: write
/// `http://127.0.0.1:8000` ``.
///
/// # Errors
/// It is no address, or one with TLS and this natsctl was built without AWS.
pub(crate) fn refuse_others(address: &str, what: &str, example: &str) -> Result<(), Hinted> {
    let parsed = address.parse::<Uri>().ok();
    match parsed.as_ref().filter(|uri| uri.authority().is_some()).and_then(Uri::scheme_str) {
        Some("http") => Ok(()),
        Some("https") if cfg!(feature = "aws") => Ok(()),
        Some("https") => {
            let message = format!("the address of {what} needs TLS, and this natsctl was built without AWS");
            Err(Hinted::new(message, "`cargo install --path cli --features aws` builds one that has it"))
        }
        _ => {
            let message = format!("`{address}` is no address of {what}");
            Err(Hinted::new(message, format!("write for example `{example}`")))
        }
    }
}
