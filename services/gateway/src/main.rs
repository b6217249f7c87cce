//! http-nats-gateway: takes HTTP requests from clients and calls the fleet.

use std::process::ExitCode;
use std::sync::Arc;

use gateway::{Gateway, Limits, Metrics};

fn main() -> ExitCode {
    let metrics = Metrics::default();
    sdk::register_metrics(|registry| metrics.register(registry));
    sdk::host(move |fleet, stop| {
        let metrics = metrics.clone();
        async move {
            let limits = Limits::from_settings(|name| fleet.setting(name)).map_err(sdk::Error::failed_precondition)?;
            let listener = sdk::http_listener().map_err(sdk::Error::unavailable)?;
            let gateway = Gateway::new(fleet.clone(), limits, metrics).map_err(sdk::Error::internal)?;
            let serving = gateway::serve(listener, Arc::new(gateway), async move { stop.requested().await });
            fleet.takes_requests();
            serving.await.map_err(sdk::Error::unavailable)
        }
    })
}
