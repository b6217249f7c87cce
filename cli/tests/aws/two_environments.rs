//! Two environments of one account: what is account-wide, such as the families of task definitions and their numbers, belongs to
//! one of them.

use serde_json::{Value, json};

use super::fleet::{Fleet, Ran};
use crate::emulator::{Emulator, Foundation};

const DEVELOPMENT: &str = "development";
const PRODUCTION: &str = "production";

struct Account {
    fleet: Fleet,
    emulator: Emulator,
}

impl Account {
    /// Nothing is deployed yet.
    fn new(own_families: bool) -> Self {
        let fleet = Fleet::of(6);
        let emulator = Emulator::start();
        for environment in [PRODUCTION, DEVELOPMENT] {
            let environment = environment.to_owned();
            emulator.foundation(&Foundation { environment, own_families, ..fleet.foundation() });
        }
        Self { fleet, emulator }
    }

    fn natsctl(&self, environment: &str, arguments: &[&str]) -> Ran {
        self.fleet.natsctl_in(environment, &self.emulator, arguments)
    }

    /// Deploys a version of `quest-system`.
    fn deploy(&self, environment: &str, version: u8) {
        self.fleet.version("quest-system", version);
        self.natsctl(environment, &["deploy", "--all"]).succeeded();
    }

    /// The task definition that `quest-system` runs in an environment.
    fn runs(&self, environment: &str) -> Value {
        let cluster =
            if environment == PRODUCTION { "gaming-system-cluster" } else { "gaming-system-cluster-development" };
        let services = json!({ "cluster": cluster, "services": ["quest-system-nats"] });
        let services = self.emulator.call("ecs", "DescribeServices", &services);
        let definition = json!({ "taskDefinition": services["services"][0]["taskDefinition"] });
        self.emulator.call("ecs", "DescribeTaskDefinition", &definition)["taskDefinition"].clone()
    }

    #[track_caller]
    fn check(&self, environment: &str, version: u8) {
        let definition = self.runs(environment);
        let container = &definition["containerDefinitions"][0];
        assert_eq!(container["image"], Fleet::image("quest-system", version), "{environment}");
        let role = definition["taskRoleArn"].as_str().unwrap();
        assert!(role.ends_with(&format!("gaming-system-{environment}-quest-system")), "{environment}: {role}");
    }

    fn numbers(&self, environment: &str) -> Vec<u64> {
        let listed = self.natsctl(environment, &["revisions", "quest-system", "--output", "json"]).succeeded().json();
        listed.as_array().unwrap().iter().map(|one| one["revision"].as_u64().unwrap()).collect()
    }
}

#[test]
fn each_has_families_and_log_streams_of_its_own() {
    let account = Account::new(true);
    account.deploy(PRODUCTION, 1);
    account.deploy(DEVELOPMENT, 2);
    let definition = account.runs(DEVELOPMENT);
    assert_eq!(definition["family"], "quest-system-nats-development");
    let log = &definition["containerDefinitions"][0]["logConfiguration"]["options"];
    assert_eq!(log["awslogs-group"], "/ecs/gaming-system-nats-development");
    assert_eq!(log["awslogs-stream-prefix"], "quest-system-nats");
    assert_eq!(account.runs(PRODUCTION)["family"], "quest-system-nats");
    for environment in [PRODUCTION, DEVELOPMENT] {
        assert_eq!(account.numbers(environment), [1]);
        account.natsctl(environment, &["rollback", "quest-system"]).failed(&["no earlier revision"]);
    }
}

#[test]
fn in_a_family_that_both_share_tags_decide_and_not_numbers() {
    let account = Account::new(false);
    account.deploy(PRODUCTION, 1);
    account.deploy(DEVELOPMENT, 2);
    account.deploy(PRODUCTION, 3);
    assert_eq!((account.numbers(PRODUCTION), account.numbers(DEVELOPMENT)), (vec![3, 1], vec![2]));

    account
        .natsctl(PRODUCTION, &["rollback", "quest-system", "--to", "2"])
        .failed(&["`quest-system-nats:2` is no revision of `quest-system`", "it is of environment `development`"]);
    account
        .natsctl(PRODUCTION, &["diff", "quest-system", "--from", "2"])
        .failed(&["it is of environment `development`"]);
    account.natsctl(DEVELOPMENT, &["deregister", "quest-system", "--keep", "1"]).succeeded();
    account.natsctl(PRODUCTION, &["rollback", "quest-system"]).succeeded();
    account.check(PRODUCTION, 1);
    account.check(DEVELOPMENT, 2);
    assert_eq!(account.numbers(PRODUCTION), [3, 1], "deregistering in another environment leaves them alone");
}

#[test]
fn going_back_is_to_what_ran_well_and_not_to_the_number_before() {
    let account = Account::new(true);
    account.deploy(PRODUCTION, 1);
    let crash = json!({ "exit": { "code": 101, "after_ms": 20 } });
    account.emulator.behave(&Fleet::image("quest-system", 2), crash);
    account.fleet.version("quest-system", 2);
    account.natsctl(PRODUCTION, &["deploy", "--all"]).failed(&["`quest-system` revision 2 failed"]);
    // Registered, but never deployed.
    account.fleet.version("quest-system", 3);
    account.natsctl(PRODUCTION, &["register", "quest-system"]).succeeded();
    account.deploy(PRODUCTION, 4);
    assert_eq!(account.numbers(PRODUCTION), [4, 3, 2, 1]);
    account.natsctl(PRODUCTION, &["rollback", "quest-system"]).succeeded();
    account.check(PRODUCTION, 1);
}

#[test]
fn a_service_of_another_family_goes_back_to_what_it_ran_before() {
    let account = Account::new(true);
    account.deploy(PRODUCTION, 1);
    // Somebody else's task definition, with a number that ours has, too.
    let mut foreign = account.runs(PRODUCTION);
    foreign["family"] = "shop-task".into();
    foreign["containerDefinitions"][0]["image"] = Fleet::image("quest-system", 9).into();
    let foreign = account.emulator.call("ecs", "RegisterTaskDefinition", &foreign);
    let arn = &foreign["taskDefinition"]["taskDefinitionArn"];
    let update = json!({ "cluster": "gaming-system-cluster", "service": "quest-system-nats", "taskDefinition": arn });
    account.emulator.call("ecs", "UpdateService", &update);

    account.deploy(PRODUCTION, 2);
    account.check(PRODUCTION, 2);
    account.natsctl(PRODUCTION, &["rollback", "quest-system"]).succeeded();
    assert_eq!(account.runs(PRODUCTION)["family"], "shop-task");
}
