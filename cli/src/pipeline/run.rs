//! Load, observe, plan, apply, verify.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::activities::Activities;
use super::history::{Record, RunResult, StepRecord};
use super::lock::IfHeld;
use super::options::{OnFailure, Options};
use crate::error::{Code, Hinted, hint};
use crate::manifest::Manifests;
use crate::model::change::{Change, Deploy};
use crate::model::desired::{Desired, Service};
use crate::model::observed::Observed;
use crate::model::plan::Plan;
use crate::model::step::{Kind, Step};
use crate::screen::progress::{Activity, during};
use crate::screen::{note, printable};

/// Where services run. A platform observes and carries out steps; what is done, and in which order, is decided here and in the planner.
pub(crate) trait Platform {
    /// What a deployment is made of besides the desired state: binaries and cluster files on this machine, images on AWS.
    type Materials;
    /// What was read, with what the platform needs to remember of it.
    type Observation: AsRef<Observed>;
    /// What carrying out the steps of one plan goes on from step to step.
    type Work<'a>
    where
        Self: 'a;
    /// Held while the environment is changed.
    type Lock;

    /// Whether taking the lock is so cheap that it is taken before anything is read.
    const LOCK_COSTS_NOTHING: bool;

    fn manifests(&self) -> &Manifests;

    /// The folder that holds the manifests, and beside them the sources.
    fn workspace(&self) -> &Path;

    /// Where this machine keeps what outlives a command, for example why a deployment failed.
    fn dir(&self) -> &Path;

    /// Who changes the environment, and by which command line.
    fn caller(&self) -> (&str, &str);

    /// What the manifests ask for, built if need be. Changes nothing that runs.
    async fn load(
        &self,
        deploy: &Deploy,
        options: &Options,
        purpose: Purpose,
    ) -> anyhow::Result<(Desired, Self::Materials)>;

    /// Reads what the change needs to know.
    async fn observe(
        &self,
        change: &Change,
        desired: &Desired,
        materials: Option<&Self::Materials>,
    ) -> anyhow::Result<Self::Observation>;

    /// Keeps other changes of the environment out.
    async fn lock(&self, if_held: IfHeld) -> anyhow::Result<Self::Lock>;

    /// Lets others change the environment.
    async fn unlock(&self, lock: Self::Lock) -> anyhow::Result<()>;

    /// Writes a run into the history, or writes it again as it is now.
    async fn put_record(&self, record: &Record) -> anyhow::Result<()>;

    /// The last runs, the newest first.
    async fn records(&self, limit: usize) -> anyhow::Result<Vec<Record>>;

    /// Gets ready to carry out a plan.
    async fn begin<'a>(
        &'a self,
        plan: &Plan,
        observation: &'a Self::Observation,
        materials: Option<&'a Self::Materials>,
        options: &'a Options,
    ) -> anyhow::Result<Self::Work<'a>>;

    /// Carries out the steps of one wave and follows them to their ends. A service that does not come up is noted in `progress`.
    ///
    /// # Errors
    /// Anything else that fails: nothing more is done then.
    async fn apply<'a>(
        &'a self,
        work: &mut Self::Work<'a>,
        wave: &[&Step],
        progress: &mut Progress,
    ) -> anyhow::Result<()>;

    /// Rolls back what this run has changed, as far as the platform does not do so itself. Says what runs now.
    async fn roll_back<'a>(&'a self, work: &mut Self::Work<'a>, progress: &mut Progress) -> anyhow::Result<()>;

    /// Shows that these services run what they were brought to, and answer. `observation` is what was read a moment ago, if nothing was
    /// changed since.
    async fn verify(
        &self,
        services: &BTreeSet<String>,
        observation: Option<&Self::Observation>,
        options: &Options,
    ) -> anyhow::Result<Vec<String>>;

    /// After a deployment that succeeded: removes what neither a task nor a rollback needs.
    async fn clean_up(&self) -> anyhow::Result<()>;
}

/// What a desired state is loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To show a plan: nothing is left behind.
    Preview,
    /// To save a plan or to carry it out.
    Change,
}

/// What a run did.
pub(crate) struct Done {
    pub(crate) plan: Plan,
    pub(crate) proofs: Vec<String>,
    /// Id of its record; `None` if nothing had to be done.
    pub(crate) record: Option<String>,
    /// How long it took.
    pub(crate) took: Duration,
}

/// How far a run is: what the history says of it, and what failed.
pub(crate) struct Progress {
    pub(crate) record: Record,
    /// Why services did not come up, by name: each on one screen.
    pub(crate) failures: BTreeMap<String, String>,
    /// What runs after a failure, as the end of a sentence.
    pub(crate) aftermath: Option<String>,
    activities: Activities,
}

impl Progress {
    fn new(record: Record) -> Self {
        Self { record, failures: BTreeMap::new(), aftermath: None, activities: Activities::default() }
    }

    /// A step starts.
    pub(crate) fn started(&mut self, step: &Step) -> &mut StepRecord {
        tracing::info!(%step, wave = step.wave, "started");
        self.activities.started(step);
        self.record.steps.push(StepRecord::started(step));
        let last = self.record.steps.len() - 1;
        &mut self.record.steps[last]
    }

    /// How far a step is.
    #[cfg(feature = "aws")]
    pub(crate) fn is_at(&self, step: &Step, state: &str) {
        self.activities.is_at(step, state);
    }

    /// A step has ended.
    pub(crate) fn ended(&mut self, step: &Step, result: &str) {
        let text = step.to_string();
        let is_failure = result == FAILED;
        self.activities.ended(step, if is_failure { "FAILED" } else { result }, is_failure);
        if let Some(record) = self.record.steps.iter_mut().rev().find(|record| record.step == text) {
            record.result = result.to_owned();
        }
    }

    /// A step of a service becomes a deployment that is followed with this.
    pub(crate) fn follow(&mut self, step: &Step) -> Activity {
        self.activities.take(step)
    }

    /// A service did not come up.
    pub(crate) fn failed(&mut self, step: &Step, explanation: String) {
        self.ended(step, FAILED);
        self.failures.insert(step.name().to_owned(), explanation);
    }

    /// The same, as an error says it.
    pub(crate) fn failed_by(&mut self, step: &Step, error: &anyhow::Error) {
        let hint = hint(error).map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
        self.failed(step, format!("{error:#}{hint}"));
    }
}

/// The result of a step that failed.
const FAILED: &str = "failed";
/// What observing is, for those who wait for it.
const OBSERVING: &str = "reading what runs";

/// Plans a change, and changes nothing. `observed` is planned against instead of what is there, if it is given.
pub(crate) async fn plan<P: Platform>(
    platform: &P,
    change: &Change,
    options: &Options,
    purpose: Purpose,
    observed: Option<Observed>,
) -> anyhow::Result<(Plan, Observed)> {
    change.refuse_impossible()?;
    let (desired, materials) = load(platform, change, options, purpose).await?;
    let observed = match observed {
        Some(observed) => observed,
        None => during(OBSERVING, platform.observe(change, &desired, materials.as_ref())).await?.as_ref().clone(),
    };
    Ok((Plan::new(change, &desired, &observed)?, observed))
}

/// Carries out a change: plans it while no other process can change the environment, does what the plan says, and verifies it.
///
/// Where taking the lock costs calls, the change is planned without it first: what is refused, or is done already, needs none.
///
/// # Errors
/// What runs then is not what was asked for; the message says why, on one screen for each service.
pub(crate) async fn run<P: Platform>(platform: &P, change: &Change, options: &Options) -> anyhow::Result<Done> {
    let begun = Instant::now();
    change.refuse_impossible()?;
    if P::LOCK_COSTS_NOTHING {
        let change = async {
            let (desired, materials) = load(platform, change, options, Purpose::Change).await?;
            locked(platform, change, options, &desired, materials.as_ref(), begun).await
        };
        return with_lock(platform, options.if_held, change).await;
    }
    let (desired, materials) = load(platform, change, options, Purpose::Change).await?;
    let observation = during(OBSERVING, platform.observe(change, &desired, materials.as_ref())).await?;
    let plan = Plan::new(change, &desired, observation.as_ref())?;
    allowed(platform, change, options, &plan)?;
    // A proof that fails may fail because another process is changing the environment: then its end is waited for.
    if plan.is_empty()
        && let Ok(proofs) = verify(platform, change, options, Some(&observation)).await
    {
        return Ok(Done { plan, proofs, record: None, took: begun.elapsed() });
    }
    with_lock(platform, options.if_held, locked(platform, change, options, &desired, materials.as_ref(), begun)).await
}

/// Does something while no other process can change the environment.
pub(super) async fn with_lock<P: Platform, T>(
    platform: &P,
    if_held: IfHeld,
    change: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let lock = during("taking the lock of the environment", platform.lock(if_held)).await?;
    let outcome = change.await;
    let unlocked = platform.unlock(lock).await;
    if let (Err(_), Err(error)) = (&outcome, &unlocked) {
        note(&format!("the lock is still held, until it expires: {error:#}"));
    }
    let done = outcome?;
    unlocked?;
    Ok(done)
}

/// Runs among which the last one about services is looked for.
const RECENT: usize = 20;

/// The services of the last change, which was interrupted or failed, and did not go back.
///
/// # Errors
/// It was neither, or it was about nothing that a manifest names.
pub(crate) async fn interrupted<P: Platform>(platform: &P) -> anyhow::Result<BTreeSet<String>> {
    // What was done to NATS alone is in the history, too.
    let last = platform.records(RECENT).await?.into_iter().find(|record| !record.services.is_empty());
    let open = last.filter(|record| record.result.is_unfinished()).map(|record| record.services);
    let services = open.unwrap_or_default().into_iter();
    let known: BTreeSet<String> = services.filter(|name| platform.manifests().services.contains_key(name)).collect();
    if known.is_empty() {
        let hint = "`natsctl history` lists changes; `natsctl deploy --all` deploys everything";
        return Err(Hinted::new("the last deployment was not interrupted", hint).into());
    }
    Ok(known)
}

async fn load<P: Platform>(
    platform: &P,
    change: &Change,
    options: &Options,
    purpose: Purpose,
) -> anyhow::Result<(Desired, Option<P::Materials>)> {
    if let Change::Deploy(deploy) = change {
        let (desired, materials) = platform.load(deploy, options, purpose).await?;
        return Ok((desired, Some(materials)));
    }
    Ok((Desired { environment: platform.manifests().name.clone(), ..Desired::default() }, None))
}

/// Refuses a plan that was not reviewed, or with a loss that was not accepted by `--force`.
fn allowed<P: Platform>(platform: &P, change: &Change, options: &Options, plan: &Plan) -> Result<(), Hinted> {
    if let Some(reviewed) = &options.reviewed {
        reviewed.refuse_others(&platform.manifests().name, change, plan)?;
    }
    plan.refuse_losses(&options.accepted)
}

/// What happens while the lock is held: what is there is read (again), since it may have changed until then.
async fn locked<P: Platform>(
    platform: &P,
    change: &Change,
    options: &Options,
    desired: &Desired,
    materials: Option<&P::Materials>,
    begun: Instant,
) -> anyhow::Result<Done> {
    let observation = during(OBSERVING, platform.observe(change, desired, materials)).await?;
    let plan = Plan::new(change, desired, observation.as_ref())?;
    allowed(platform, change, options, &plan)?;
    if plan.is_empty() {
        let proofs = verify(platform, change, options, Some(&observation)).await?;
        return Ok(Done { plan, proofs, record: None, took: begun.elapsed() });
    }
    let (who, command) = platform.caller();
    let record = Record::start(who, command, platform.workspace(), change.services());
    let mut progress = Progress::new(record);
    put_record(platform, change, &progress.record).await?;
    let outcome = complete(platform, change, options, desired, materials, observation, plan, &mut progress).await;
    let outcome = match outcome {
        Ok(plan) => verify(platform, change, options, None).await.map(|proofs| (plan, proofs)),
        Err(error) => Err(error),
    };
    progress.record.end(&outcome);
    // Deleting an environment's data deletes its history.
    let forgotten = matches!(change, Change::Down { data: true }) && outcome.is_ok();
    let recorded = if forgotten { Ok(()) } else { put_record(platform, change, &progress.record).await };
    // Why the run failed is worth more than that it could not be recorded, which often has the same reason.
    if let (Err(_), Err(error)) = (&outcome, &recorded) {
        note(&format!("the history will not show how this ended: {error:#}"));
    }
    let (plan, proofs) = outcome?;
    recorded?;
    if matches!(change, Change::Deploy(_)) {
        during("removing what is not needed any more", platform.clean_up()).await?;
    }
    Ok(Done { plan, proofs, record: Some(progress.record.id), took: begun.elapsed() })
}

/// Writes a run into the history. Stopping everything must be possible on a full disk too, so there a failure is no more than said.
async fn put_record<P: Platform>(platform: &P, change: &Change, record: &Record) -> anyhow::Result<()> {
    match platform.put_record(record).await {
        Err(error) if matches!(change, Change::Down { .. }) => {
            note(&format!("the history will not show this: {error:#}"));
            Ok(())
        }
        written => written,
    }
}

/// Applies plan after plan, until one is complete: what comes after servers that were down can only be planned when they run.
#[expect(clippy::too_many_arguments, reason = "the state of one run, which no other function takes")]
async fn complete<P: Platform>(
    platform: &P,
    change: &Change,
    options: &Options,
    desired: &Desired,
    materials: Option<&P::Materials>,
    mut observation: P::Observation,
    mut plan: Plan,
    progress: &mut Progress,
) -> anyhow::Result<Plan> {
    let mut all = Plan::default();
    loop {
        note(&plan.summary());
        apply(platform, &plan, desired, &observation, materials, options, progress).await?;
        all.steps.append(&mut plan.steps);
        if plan.incomplete.is_none() {
            return Ok(all);
        }
        observation = during(OBSERVING, platform.observe(change, desired, materials)).await?;
        plan = Plan::new(change, desired, observation.as_ref())?;
        // Only the first part was reviewed; nothing is lost without a word in the others either.
        plan.refuse_losses(&options.accepted)?;
        if plan.incomplete.is_some() {
            anyhow::bail!("the servers were started, but {}", plan.incomplete.unwrap_or_default());
        }
    }
}

/// Carries out a plan. What `--on-failure` says decides what follows when a service does not come up.
async fn apply<P: Platform>(
    platform: &P,
    plan: &Plan,
    desired: &Desired,
    observation: &P::Observation,
    materials: Option<&P::Materials>,
    options: &Options,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let mut errors = RunErrors::default();
    match platform.begin(plan, observation, materials, options).await {
        Ok(mut work) => {
            errors.interruption = apply_waves(platform, plan, desired, &mut work, options, progress).await.err();
            if !progress.failures.is_empty() && options.on_failure == OnFailure::Rollback {
                errors.rollback = platform.roll_back(&mut work, progress).await.err();
            }
        }
        Err(error) => errors.interruption = Some(error),
    }
    if progress.failures.is_empty() && errors.interruption.is_none() {
        return Ok(());
    }
    Err(failure(platform.dir(), options, progress, &errors))
}

/// Runs all waves in their order. A wave in which a service failed is finished.
async fn apply_waves<'a, P: Platform>(
    platform: &'a P,
    plan: &Plan,
    desired: &Desired,
    work: &mut P::Work<'a>,
    options: &Options,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    for wave in plan.waves() {
        let affected = callers_of_failed(desired, &progress.failures);
        let is_affected = |step: &&Step| step.kind() == Kind::Service && affected.contains(step.name());
        let steps: Vec<&Step> = wave.iter().filter(|step| !is_affected(step)).collect();
        platform.apply(work, &steps, progress).await?;
        if !progress.failures.is_empty() && options.on_failure != OnFailure::Continue {
            break;
        }
    }
    Ok(())
}

/// What went wrong in a run besides services that did not come up.
#[derive(Default)]
struct RunErrors {
    /// Why it could not go on, for example because credentials have expired.
    interruption: Option<anyhow::Error>,
    /// Why what it had changed could not be rolled back.
    rollback: Option<anyhow::Error>,
}

impl RunErrors {
    /// The texts of the errors, in the order in which they came.
    fn texts(&self) -> impl Iterator<Item = String> {
        let interruption = self.interruption.iter().map(|error| format!("{error:#}"));
        interruption.chain(self.rollback.iter().map(|error| format!("and rolling back failed: {error:#}")))
    }

    fn hints(&self) -> impl Iterator<Item = String> {
        [&self.interruption, &self.rollback].into_iter().flatten().filter_map(hint)
    }
}

/// Services that call one that did not come up, directly or through others.
fn callers_of_failed(desired: &Desired, failures: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut affected: BTreeSet<String> = failures.keys().cloned().collect();
    loop {
        let calls_one = |service: &Service| service.calls.iter().any(|callee| affected.contains(callee));
        let more = desired.services.iter().filter(|(name, service)| !affected.contains(*name) && calls_one(service));
        let more: Vec<String> = more.map(|(name, _)| name.clone()).collect();
        if more.is_empty() {
            return affected;
        }
        affected.extend(more);
    }
}

async fn verify<P: Platform>(
    platform: &P,
    change: &Change,
    options: &Options,
    observation: Option<&P::Observation>,
) -> anyhow::Result<Vec<String>> {
    if !change.is_verified() || options.wait_until != super::options::WaitUntil::Proven {
        return Ok(Vec::new());
    }
    during("proving that the tasks answer", platform.verify(&change.services(), observation, options)).await
}

/// All failures on one screen, and in a file that outlives the rollback.
fn failure(dir: &Path, options: &Options, progress: &mut Progress, errors: &RunErrors) -> anyhow::Error {
    if errors.interruption.is_some() || errors.rollback.is_some() {
        progress.record.result = RunResult::Interrupted;
    } else if options.on_failure == OnFailure::Rollback && progress.aftermath.is_some() {
        progress.record.result = RunResult::RolledBack;
    }
    let text = progress.failures.values().cloned().chain(errors.texts()).collect::<Vec<_>>().join("\n\n");
    let file = failure_file(dir, &progress.record.id);
    let written = fs::create_dir_all(file.parent().unwrap_or(dir))
        .and_then(|()| fs::write(&file, printable(&format!("{text}\n"))));
    // Why it failed is worth more than that it could not be written down, which often has the same reason.
    let kept = match written {
        Ok(()) => format!("this is also in `{}`", file.display()),
        Err(error) => format!("this could not be written into `{}`: {error}", file.display()),
    };
    let logs: Vec<String> = progress.failures.keys().map(|service| format!("`natsctl logs {service}`")).collect();
    let logs = (!logs.is_empty()).then(|| format!("all of the log: {}", logs.join(", ")));
    let hints = errors.hints().chain([aftermath(options, progress, errors)]).chain(logs).chain([kept]);
    let error = Hinted::new(text, hints.collect::<Vec<_>>().join("; "));
    let error = if progress.failures.is_empty() { error } else { error.code(Code::DeploymentFailed) };
    error.into()
}

/// What runs after a failure.
fn aftermath(options: &Options, progress: &Progress, errors: &RunErrors) -> String {
    if let Some(aftermath) = &progress.aftermath {
        return aftermath.clone();
    }
    if errors.rollback.is_some() {
        return "what this run had changed may still run; `natsctl status` shows it".to_owned();
    }
    if errors.interruption.is_some() {
        return "what was done stays; the same command, or `natsctl deploy --resume`, goes on with it".to_owned();
    }
    let now = match options.on_failure {
        OnFailure::Rollback => "nothing was changed",
        OnFailure::Stop => "what came up stays; nothing more was started",
        OnFailure::Continue => "what does not call it was deployed",
    };
    now.to_owned()
}

/// Where the explanation of a failed run is.
fn failure_file(dir: &Path, record: &str) -> PathBuf {
    dir.join("failures").join(format!("{}.txt", record.replace(':', "-")))
}
