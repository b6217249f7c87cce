//! Streams, buckets and consumers.

use super::*;

fn with_outbox(desired: &mut Desired) {
    desired.buckets.get_mut("models").unwrap().outbox_seconds = 60;
    desired.streams.get_mut("EVT_A").unwrap().outboxes = names(&["models"]);
}

#[test]
fn a_bucket_has_its_outbox_before_a_stream_takes_events_over() {
    check(
        |desired, _| with_outbox(desired),
        &["0 Update Bucket models outbox_seconds 0 → 60", "1 Update Stream EVT_A outboxes [] → [\"models\"]"],
    );
    // Of what is selected, only the stream is needed by name.
    let mut desired = fleet();
    with_outbox(&mut desired);
    let selection = Selection { services: names(&["a"]), all: false };
    let deploy = Change::Deploy(Deploy { selection, prune: false, without_jetstream: false });
    let observed = Observed { nodes: settled(&desired).nodes, ..Observed::default() };
    let plan = Plan::new(&deploy, &desired, &observed).unwrap();
    let order: Vec<_> = plan.steps.iter().map(|step| (step.wave, step.name())).collect();
    assert_eq!(order, [(0, "models"), (1, "EVT_A"), (2, "a")]);
}

#[test]
fn a_stream_gives_up_an_outbox_only_when_that_is_accepted() {
    let mut desired = fleet();
    with_outbox(&mut desired);
    let observed = settled(&desired);
    desired.streams.get_mut("EVT_A").unwrap().outboxes.clear();
    assert_eq!(shown(&plan(&desired, &observed)), ["0 Reduce Stream EVT_A outboxes [\"models\"] → [] !subjects"]);
}

#[test]
fn consumers_come_after_their_streams_and_go_on_where_they_are() {
    let name = "EVT_A/b_a";
    let consumer = Consumer {
        service: Some("b".to_owned()),
        subjects: vec!["evt.a".to_owned()],
        start: ConsumerStart::All,
        ack_wait_ms: 30_000,
        max_ack_pending: 1_000,
        max_deliver: -1,
    };
    let mut desired = fleet();
    let b = desired.services.get_mut("b").unwrap();
    (b.streams, b.consumers) = (names(&["EVT_A"]), names(&[name]));
    desired.consumers.insert(name.to_owned(), consumer.clone());
    let first = plan(&desired, &Observed::default());
    let wave = |kind: Kind| first.steps.iter().find(|step| step.kind() == kind).unwrap().wave;
    assert!(wave(Kind::Stream) < wave(Kind::Consumer) && wave(Kind::Consumer) < wave(Kind::Service));

    let mut observed = settled(&desired);
    assert_eq!(shown(&plan(&desired, &observed)), [""; 0]);
    // Where it began is over, and somebody has changed it.
    stored(&mut observed).consumers.get_mut(name).unwrap().start = ConsumerStart::New;
    assert_eq!(shown(&plan(&desired, &observed)), [""; 0]);
    stored(&mut observed).consumers.get_mut(name).unwrap().max_deliver = 3;
    assert_eq!(shown(&plan(&desired, &observed)), ["0 Update Consumer EVT_A/b_a max_deliver 3 → -1"]);
    stored(&mut observed).consumers.clear();
    assert_eq!(shown(&plan(&desired, &observed)).len(), 1);

    // Of those that nobody wants, only natsctl's own are deleted.
    let foreign = Consumer { service: None, ..consumer.clone() };
    let old = [("EVT_A/theirs".to_owned(), foreign), ("EVT_A/c_a".to_owned(), consumer)];
    let mut observed = settled(&desired);
    stored(&mut observed).consumers.extend(old);
    assert_eq!(shown(&plan(&desired, &observed)), ["0 Delete Consumer EVT_A/c_a"]);
}

#[track_caller]
fn reduces(change: impl FnOnce(&mut Desired, &mut Assets), expected: &[&str]) {
    let mut desired = fleet();
    let mut observed = settled(&desired);
    change(&mut desired, stored(&mut observed));
    let plan = plan(&desired, &observed);
    assert_eq!(shown(&plan), expected);
    let kinds: BTreeSet<LossKind> = plan.steps.iter().flat_map(|step| step.losses().iter().map(Loss::kind)).collect();
    let refused = plan.refuse_losses(&BTreeSet::new()).unwrap_err();
    let hint = crate::error::hint(&refused.into()).unwrap();
    for kind in &kinds {
        assert!(hint.contains(&format!("--force {kind}")), "{hint}");
    }
    plan.refuse_losses(&kinds).unwrap();
}

#[test]
fn what_loses_something_is_a_step_of_its_own_and_wants_a_word() {
    reduces(
        |_, there| there.buckets.get_mut("models").unwrap().history = 20,
        &["0 Reduce Bucket models history 20 → 1 !history"],
    );
    reduces(
        |_, there| {
            let bucket = there.buckets.get_mut("models").unwrap();
            (bucket.history, bucket.replicas) = (20, 1);
        },
        &["0 Update Bucket models replicas 1 → 3", "1 Reduce Bucket models history 20 → 1 !history"],
    );
    reduces(
        |desired, _| desired.buckets.get_mut("models").unwrap().ttl_seconds = 60,
        &["0 Reduce Bucket models ttl_seconds 0 → 60 !retention"],
    );
    reduces(
        |desired, _| {
            let stream = desired.streams.get_mut("EVT_A").unwrap();
            (stream.replicas, stream.max_age_seconds) = (1, 30);
        },
        &["0 Reduce Stream EVT_A max_age_seconds 60 → 30, replicas 3 → 1 !replicas !retention"],
    );
}

#[test]
fn what_loses_nothing_wants_no_word() {
    let mut desired = fleet();
    let observed = settled(&desired);
    let bucket = desired.buckets.get_mut("models").unwrap();
    (bucket.history, bucket.replicas) = (10, 5);
    let stream = desired.streams.get_mut("EVT_A").unwrap();
    stream.subjects.push("evt.b".to_owned());
    stream.max_age_seconds = 0;
    let plan = plan(&desired, &observed);
    assert_eq!(plan.steps.iter().map(Step::action).collect::<Vec<_>>(), [Action::Update, Action::Update]);
    plan.refuse_losses(&BTreeSet::new()).unwrap();
}
