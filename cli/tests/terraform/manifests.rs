//! Manifests of all 22 services and the gateway: those of the repository, and small ones of services that do not exist yet.

use std::fs;
use std::path::Path;

const SERVICES: [&str; 22] = [
    "ai-integration",
    "ai-router",
    "auth",
    "body-broker-integration",
    "capability-registry",
    "environmental-narrative",
    "event-bus",
    "knowledge-base",
    "language-system",
    "model-management",
    "npc-behavior",
    "orchestration",
    "payment",
    "performance-mode",
    "quest-system",
    "router",
    "settings",
    "state-manager",
    "story-teller",
    "time-manager",
    "weather-manager",
    "world-state",
];

/// Adds those that are missing, and what some of them set more.
pub(crate) fn complete(folder: &Path) {
    for name in SERVICES {
        let file = folder.join(format!("services/{name}.yaml"));
        let text = fs::read_to_string(&file).unwrap_or_else(|_| format!("name: {name}\n"));
        fs::write(file, text + more(name)).unwrap();
    }
}

/// One more service.
pub(crate) fn add(folder: &Path, name: &str) {
    fs::write(folder.join(format!("services/{name}.yaml")), format!("name: {name}\n")).unwrap();
}

/// Some services set more, so that secrets, rights, sessions and thresholds are covered.
fn more(name: &str) -> &'static str {
    match name {
        "payment" => {
            "secrets: { BANK_KEY: bank/key }\nalarms: { cpu_percent: 60 }\nautoscaling: { min: 3 }\ntasks: 3\n"
        }
        "knowledge-base" => "aws:\n  - actions: [\"s3:GetObject\"]\n    resources: [\"arn:aws:s3:::knowledge/*\"]\n",
        "router" => "execute_command: true\n",
        _ => "",
    }
}
