//! Shutting down without losing requests.

use super::*;

#[tokio::test]
async fn a_shutdown_finishes_accepted_requests_and_loses_none() {
    let server = NatsServer::start();
    let mut current = serve(Settings::for_service("llm", server.connection()), LlmServer(Fake::default())).await;
    let (stopped, until) = watch::channel(false);
    let connection = server.connection();
    // On a separate thread: the load must continue while the worker's thread is blocked.
    let load = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client: LlmClient = Fleet::connect(Settings::for_service("caller", connection)).await.unwrap().client();
            let calls = (0..16).map(|_| async {
                let mut answered = 0;
                while !*until.borrow() {
                    client.infer(prompt("")).await.unwrap();
                    answered += 1;
                }
                answered
            });
            futures::future::join_all(calls).await.into_iter().sum::<usize>()
        })
    });
    // Tasks are replaced one after another under load, as in a rolling deployment.
    for task in 2..22 {
        let settings = Settings { task: task.to_string(), ..Settings::for_service("llm", server.connection()) };
        let next = serve(settings, LlmServer(Fake::default())).await;
        current.trigger.send_replace(true);
        timeout(SOON, current.task).await.unwrap().unwrap().unwrap();
        current = next;
    }
    stopped.send_replace(true);
    // Not on this thread, on which the last worker is still serving.
    let answered = tokio::task::spawn_blocking(move || load.join().unwrap()).await.unwrap();
    assert!(answered > 0);
}

#[tokio::test]
async fn a_shutdown_waits_for_running_requests() {
    let server = NatsServer::start();
    let fake = Fake::default();
    let (serving, client) = llm(&server, &fake).await;
    let call = tokio::spawn(async move { client.infer(prompt("wait")).await });
    timeout(SOON, async {
        while fake.calls.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    serving.trigger.send_replace(true);
    fake.release.notify_one();
    call.await.unwrap().unwrap();
    timeout(SOON, serving.task).await.unwrap().unwrap().unwrap();
}

/// Answers at once, and goes on until the test lets it.
struct GoesOn {
    fleet: Fleet,
    fake: Fake,
}

impl Llm for GoesOn {
    async fn infer(&self, _: InferRequest) -> Result<InferResponse, Error> {
        let (fleet, fake) = (self.fleet.clone(), self.fake.clone());
        self.fleet.spawn(async move {
            fake.calls.fetch_add(1, Ordering::SeqCst);
            fleet.stopping().await;
            assert!(fleet.is_stopping());
            fake.release.notified().await;
            fake.dropped.fetch_add(1, Ordering::SeqCst);
        });
        Ok(InferResponse { text: self.fleet.is_stopping().to_string(), ..InferResponse::default() })
    }

    async fn infer_stream(&self, _: InferStreamRequest) -> Result<Stream<InferStreamResponse>, Error> {
        Err(Error::invalid("unused"))
    }
}

#[tokio::test]
async fn a_shutdown_waits_for_what_goes_on_after_an_answer() {
    let server = NatsServer::start();
    let fake = Fake::default();
    let (trigger, shutdown) = Shutdown::new();
    let fleet = server.fleet("llm").await;
    let build = {
        let fake = fake.clone();
        move |fleet| {
            let fake = fake.clone();
            async move { Ok(GoesOn { fleet, fake }) }
        }
    };
    let working = tokio::spawn(async move { sdk::service(build).serve(LlmServer).work(fleet, shutdown).await });
    let client: LlmClient = caller(&server).await.client();
    let answer = async {
        loop {
            if let Ok(answer) = client.infer(prompt("")).await {
                return answer.text;
            }
        }
    };
    assert_eq!(timeout(SOON, answer).await.unwrap(), "false");
    trigger.send_replace(true);
    // It is not over while the work goes on, and is when that ends.
    while timeout(SOON, plain(&server.connection()).await.request("$SRV.PING.llm", Bytes::new())).await.unwrap().is_ok()
    {
    }
    assert!(!working.is_finished());
    assert_eq!((fake.calls.load(Ordering::SeqCst), fake.dropped.load(Ordering::SeqCst)), (1, 0));
    fake.release.notify_one();
    timeout(SOON, working).await.unwrap().unwrap().unwrap();
    assert_eq!(fake.dropped.load(Ordering::SeqCst), 1);
}
