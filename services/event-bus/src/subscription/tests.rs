use super::*;

const START: SystemTime = SystemTime::UNIX_EPOCH;

fn at(milliseconds: u64) -> SystemTime {
    START + Duration::from_millis(milliseconds)
}

/// Deliveries are due after a second; two at most, three in flight.
fn subscription() -> Subscription {
    let request = PutSubscriptionRequest {
        stream: "s".to_owned(),
        name: "n".to_owned(),
        ack_wait_ms: 1_000,
        max_deliveries: 2,
        max_in_flight: 3,
        ..PutSubscriptionRequest::default()
    };
    checked(&request, START).unwrap()
}

/// A fetch that has read everything after the cursor of a stream with the messages 10, 20 and so on up to `last`.
fn read(subscription: &Subscription, fetch: &str, limit: usize, last: u64, now: SystemTime) -> Read {
    let again: BTreeSet<u64> = due(subscription, limit, now).into_iter().collect();
    let fresh = (1..=last / 10).map(|number| number * 10).filter(|sequence| *sequence > subscription.cursor);
    let fresh = fresh.take(limit - again.len()).collect();
    Read { fetch: fetch.to_owned(), limit, after: subscription.cursor, fresh, again, ..Read::default() }
}

fn fetch(
    current: &Subscription,
    id: &str,
    limit: usize,
    last: u64,
    now: SystemTime,
) -> (Subscription, Vec<(u64, u32)>) {
    let next = fetched(current.clone(), &read(current, id, limit, last, now), now);
    let delivered = held(&next, id).map(|it| (it.sequence, it.deliveries)).collect();
    (next, delivered)
}

#[test]
fn messages_are_delivered_in_order_up_to_the_limits() {
    let (next, delivered) = fetch(&subscription(), "a", 2, 50, at(0));
    assert_eq!((delivered, next.cursor), (vec![(10, 1), (20, 1)], 20));
    let (next, delivered) = fetch(&next, "b", 5, 50, at(1));
    assert_eq!((delivered, next.cursor), (vec![(30, 1)], 30), "three in flight");
    assert_eq!(fetch(&next, "c", 5, 50, at(2)).1, []);
    let (next, not_in_flight) = acknowledged(next, &[20, 25, 10]);
    assert_eq!(not_in_flight, [25]);
    assert_eq!(fetch(&next, "d", 5, 50, at(3)).1, [(40, 1), (50, 1)]);
}

#[test]
fn a_repeated_fetch_gets_what_it_got() {
    let (next, delivered) = fetch(&subscription(), "a", 2, 50, at(0));
    assert_eq!(fetch(&next, "a", 2, 50, at(1)), (next.clone(), delivered));
    let (next, _) = acknowledged(next, &[10, 20]);
    assert_eq!(fetch(&next, "a", 2, 50, at(2)).1, [(30, 1), (40, 1)]);
}

#[test]
fn of_two_fetches_that_read_the_same_each_message_goes_to_one() {
    let current = subscription();
    let reads = ["a", "b"].map(|id| read(&current, id, 2, 50, at(0)));
    let next = fetched(fetched(current, &reads[0], at(0)), &reads[1], at(0));
    assert_eq!(held(&next, "a").map(|it| it.sequence).collect::<Vec<_>>(), [10, 20]);
    assert_eq!(held(&next, "b").count(), 0);
    let longer = Read { limit: 3, fresh: vec![10, 20, 30], ..reads[1].clone() };
    let next = fetched(next, &longer, at(0));
    assert_eq!(held(&next, "b").map(|it| it.sequence).collect::<Vec<_>>(), [30]);
}

#[test]
fn what_is_not_acknowledged_is_delivered_again_and_then_dead() {
    let (next, _) = fetch(&subscription(), "a", 2, 20, at(0));
    assert_eq!(fetch(&next, "b", 2, 20, at(999)).1, []);
    let (next, delivered) = fetch(&next, "b", 2, 20, at(1_000));
    assert_eq!(delivered, [(10, 2), (20, 2)]);
    assert!(!has_exhausted(&next, at(1_999)) && has_exhausted(&next, at(2_000)));
    let (next, events) = buried(next, at(2_000));
    assert_eq!((next.in_flight.len(), next.dead_letters.len()), (0, 2));
    assert_eq!(events.iter().map(|event| (event.sequence, event.deliveries)).collect::<Vec<_>>(), [(10, 2), (20, 2)]);

    let (next, taken, unknown) = exhumed(next, &[20, 30]);
    assert_eq!((taken.len(), unknown, next.dead_letters.len()), (1, vec![30], 1));
    let next = revived(next, &taken, at(3_000));
    assert_eq!(fetch(&next, "c", 2, 20, at(3_000)).1, [(20, 1)]);
}

#[test]
fn a_returned_message_comes_after_its_delay_unless_it_was_delivered_again() {
    let (next, _) = fetch(&subscription(), "a", 1, 20, at(0));
    let it = Returned { sequence: 10, delivery: 1, delay_ms: 500, reason: "busy" };
    let next = returned(next, it, at(100)).unwrap();
    assert_eq!(fetch(&next, "b", 1, 10, at(599)).1, []);
    let (next, delivered) = fetch(&next, "b", 1, 10, at(600));
    assert_eq!(delivered, [(10, 2)]);
    assert_eq!(returned(next.clone(), it, at(601)), None, "that was the first delivery");
    let next = returned(next, Returned { delivery: 2, ..it }, at(601)).unwrap();
    let (next, events) = buried(next, at(601));
    assert_eq!((&*events[0].reason, next.dead_letters.len()), ("busy", 1), "at once, without the delay");
}

#[test]
fn what_the_stream_does_not_have_any_more_is_counted() {
    let (next, _) = fetch(&subscription(), "a", 2, 20, at(0));
    let read = Read { again: [20].into(), gone: [10].into(), ..read(&next, "b", 2, 20, at(1_000)) };
    let next = fetched(next, &read, at(1_000));
    assert_eq!((next.expired, held(&next, "b").map(|it| it.sequence).collect::<Vec<_>>()), (1, vec![20]));
}

#[test]
fn a_subscription_has_at_most_so_many_dead_letters() {
    let mut full = subscription();
    full.dead_letters = vec![DeadLetter::default(); MAX_DEAD_LETTERS - 1];
    full.in_flight = (1..=3).map(|sequence| InFlight { sequence, deliveries: 2, ..InFlight::default() }).collect();
    let (full, events) = buried(full, at(0));
    assert_eq!((events.len(), full.dead_letters.len(), full.in_flight.len()), (1, MAX_DEAD_LETTERS, 2));
    assert!(!has_exhausted(&full, at(0)) && due(&full, 9, at(0)).is_empty(), "they wait until there is room");
}

#[test]
fn limits_change_and_the_topic_does_not() {
    let current = fetch(&subscription(), "a", 2, 20, at(0)).0;
    let next = changed(&current, &Subscription { max_deliveries: 9, ..subscription() }).unwrap();
    assert_eq!((next.max_deliveries, next.cursor, next.in_flight.len()), (9, 20, 2));
    let error = changed(&current, &Subscription { topic: "a".to_owned(), ..subscription() }).unwrap_err();
    assert!(error.message().starts_with("subscription `n` of stream `s` is to topic `>`"), "{error}");
    let info = info(next, 7);
    assert_eq!((info.waiting, info.in_flight, info.lag), (7, 2, 9));
}
