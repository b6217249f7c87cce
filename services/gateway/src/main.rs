//! http-nats-gateway: accepts HTTP requests and calls the services of the fleet.

use std::process::ExitCode;
use std::sync::Arc;

use gateway::{Gateway, Limits, Metrics, PublicMethods};

fn main() -> ExitCode {
    let metrics = Metrics::default();
    sdk::register_metrics(|registry| metrics.register(registry));
    sdk::run_workers(move |fleet, shutdown| {
        let metrics = metrics.clone();
        async move {
            let limits = Limits::from_settings(|name| fleet.setting(name)).map_err(sdk::Error::failed_precondition)?;
            let public =
                PublicMethods::from_settings(|name| fleet.setting(name)).map_err(sdk::Error::failed_precondition)?;
            if public.methods().is_empty() {
                tracing::warn!("no method is public: `GATEWAY_METHODS` names none");
            }
            let listener = sdk::http_listener().map_err(sdk::Error::unavailable)?;
            let gateway = Gateway::new(fleet.clone(), &public, limits, metrics).map_err(sdk::Error::internal)?;
            let serving = gateway::serve(listener, Arc::new(gateway), async move { shutdown.requested().await });
            fleet.be_discovered();
            fleet.set_ready();
            serving.await.map_err(sdk::Error::unavailable)
        }
    })
}
