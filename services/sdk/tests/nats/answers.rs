//! Answers that come late, twice or from elsewhere reach no call but their own.

use super::*;

/// Calls that run at the same time: few, so that their slots are used again at once.
const CALLERS: usize = 32;
/// Calls that each of them makes.
const CALLS: usize = 150;
/// The longest time that an answer, or a copy of one, is held back.
const MAX_DELAY: Duration = Duration::from_millis(20);

/// Answers with the prompt, after some time.
struct SlowEcho;

impl Llm for SlowEcho {
    async fn infer(&self, request: InferRequest) -> Result<InferResponse, Error> {
        tokio::time::sleep(random_delay()).await;
        if request.prompt.ends_with('7') {
            return Err(Error::invalid(request.prompt));
        }
        Ok(InferResponse { text: request.prompt, ..InferResponse::default() })
    }

    async fn infer_stream(&self, _: InferStreamRequest) -> Result<Stream<InferStreamResponse>, Error> {
        Err(Error::invalid("unused"))
    }
}

fn random_delay() -> Duration {
    MAX_DELAY.mul_f64(fastrand::f64())
}

/// Publishes each answer again, up to three times, at random times, just as it was.
async fn double_answers(server: &NatsServer) -> (JoinHandle<()>, Arc<AtomicUsize>) {
    let options = async_nats::ConnectOptions::new().no_echo();
    let client = options.connect(server.connection().urls.as_slice()).await.unwrap();
    let mut answers = client.subscribe("_INBOX_caller.>").await.unwrap();
    client.flush().await.unwrap();
    let copies = Arc::new(AtomicUsize::new(0));
    let doubling = tokio::spawn({
        let copies = Arc::clone(&copies);
        async move {
            while let Some(answer) = answers.next().await {
                for _ in 0..fastrand::usize(1..=3) {
                    let (client, answer, copies) = (client.clone(), answer.clone(), Arc::clone(&copies));
                    tokio::spawn(async move {
                        tokio::time::sleep(random_delay()).await;
                        let headers = answer.headers.unwrap_or_default();
                        let (subject, payload) = (answer.subject, answer.payload);
                        match answer.reply {
                            Some(reply) => {
                                client.publish_with_reply_and_headers(subject, reply, headers, payload).await
                            }
                            None => client.publish_with_headers(subject, headers, payload).await,
                        }
                        .unwrap();
                        copies.fetch_add(1, Ordering::Relaxed);
                    });
                }
            }
        }
    });
    (doubling, copies)
}

/// Answers as any client of NATS does, whether or not somebody still waits.
async fn serve_without_sdk(server: &NatsServer) -> JoinHandle<()> {
    let client = plain(&server.connection()).await;
    let mut requests = client.queue_subscribe("svc.ai.llm.v1.infer", "others".into()).await.unwrap();
    client.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let client = client.clone();
            tokio::spawn(async move {
                tokio::time::sleep(random_delay()).await;
                let prompt = sdk_decode::<InferRequest>(request.payload).prompt;
                let response = InferResponse { text: prompt, ..InferResponse::default() };
                let payload = prost::Message::encode_to_vec(&response).into();
                client.publish(request.reply.unwrap(), payload).await.unwrap();
            });
        }
    })
}

/// Makes calls until many were answered, and many given up: a machine that is busy answers later.
async fn call_until_both(client: &LlmClient) -> [usize; 2] {
    let (mut sum, mut longest) = ([0; 2], MAX_DELAY);
    while sum[0] <= CALLS || sum[1] <= CALLS {
        let counts = call_at_random(client, longest).await;
        sum = [sum[0] + counts[0], sum[1] + counts[1]];
        longest *= 2;
    }
    sum
}

/// Makes calls that are given up after a random time. Returns how many were answered and how many were given up.
async fn call_at_random(client: &LlmClient, longest: Duration) -> [usize; 2] {
    let calls = (0..CALLERS).map(|caller| async move {
        let mut counts = [0; 2];
        for number in 0..CALLS {
            let own = format!("{caller}/{number}");
            // The deadline that is sent has whole milliseconds.
            let time = 1 + fastrand::u64(..) % longest.as_millis() as u64;
            match timeout(Duration::from_millis(time), within(10_000).scope(client.infer(prompt(&own)))).await {
                Ok(Ok(response)) => assert_eq!(response.text, own),
                Ok(Err(error)) => assert_eq!(error.message(), own),
                Err(_) => {
                    counts[1] += 1;
                    continue;
                }
            }
            counts[0] += 1;
        }
        counts
    });
    let counts = futures::future::join_all(calls).await;
    counts.into_iter().fold([0; 2], |sum, counts| [sum[0] + counts[0], sum[1] + counts[1]])
}

#[tokio::test]
async fn a_late_or_doubled_answer_reaches_no_other_call() {
    let server = NatsServer::start();
    let (_doubling, copies) = double_answers(&server).await;
    let settings = Settings { concurrency: 1_000, ..Settings::for_service("llm", server.connection()) };
    let _serving = serve(settings, LlmServer(SlowEcho)).await;
    let client: LlmClient = caller(&server).await.client();
    let [answered, _] = call_until_both(&client).await;
    assert!(copies.load(Ordering::Relaxed) > answered);
}

#[tokio::test]
async fn answers_of_a_service_without_the_sdk_reach_no_other_call_either() {
    let server = NatsServer::start();
    let (_doubling, copies) = double_answers(&server).await;
    let _serving = serve_without_sdk(&server).await;
    let client: LlmClient = caller(&server).await.client();
    let [answered, _] = call_until_both(&client).await;
    assert!(copies.load(Ordering::Relaxed) > answered);
}

#[tokio::test]
async fn the_subjects_of_answers_repeat() {
    let server = NatsServer::start();
    let (_serving, client) = llm(&server, &Fake::default()).await;
    let observer = plain(&server.connection()).await;
    let mut answers = observer.subscribe("_INBOX_caller.>").await.unwrap();
    observer.flush().await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        client.infer(prompt("")).await.unwrap();
        let answer = timeout(SOON, answers.next()).await.unwrap().unwrap();
        seen.push((answer.subject, answer.reply.unwrap()));
    }
    let [(subject, first), (again, second), (_, third)] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!(subject, again);
    assert!(first != second && second != third && first.starts_with("call-"), "{seen:?}");
}

#[tokio::test]
async fn a_service_cannot_answer_a_call_that_it_did_not_receive() {
    let server = NatsServer::start();
    let fake = Fake::default();
    let (_serving, client) = llm(&server, &fake).await;
    let stranger = plain(&server.connection()).await;
    let mut answers = stranger.subscribe("_INBOX_caller.>").await.unwrap();
    stranger.flush().await.unwrap();
    client.infer(prompt("")).await.unwrap();
    // It knows the subject and the token of an earlier call.
    let earlier = timeout(SOON, answers.next()).await.unwrap().unwrap();
    let waiting = tokio::spawn(async move { client.infer(prompt("wait")).await });
    timeout(SOON, async {
        while fake.calls.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let forged = InferResponse { text: "forged".into(), ..InferResponse::default() };
    let payload = Bytes::from(prost::Message::encode_to_vec(&forged));
    for token in [earlier.reply.unwrap().as_str(), "call-0000000000000002"] {
        let whole = format!("{}.{token}", earlier.subject);
        stranger.publish_with_reply(earlier.subject.clone(), token.to_owned(), payload.clone()).await.unwrap();
        stranger.publish(whole, payload.clone()).await.unwrap();
    }
    stranger.publish(earlier.subject, payload).await.unwrap();
    stranger.flush().await.unwrap();
    fake.release.notify_one();
    assert_ne!(waiting.await.unwrap().unwrap().text, "forged");
}
