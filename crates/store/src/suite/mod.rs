//! What every store must do. An implementation runs each part against a fresh store of its own, by the macro
//! [`store_suite`], so that each shows as one test.

pub(crate) mod builds;
pub(crate) mod claims;
pub(crate) mod claims_model;
pub(crate) mod layers;
pub(crate) mod misc;
pub(crate) mod results;
pub(crate) mod usage;

use std::time::Duration;

use buildyard_model::{
    BuildId, Chain, Digest, JobId, LayerId, Platform, Scope, StepDigest, StepKey, WorkerId,
};

use crate::{ClaimKey, ClaimedBy, Generation, HeldClaim, StepResult, UnixMillis};

/// Makes a test of each part; `$make` is a future that yields something that derefs to a fresh store.
macro_rules! store_suite {
    ($make:expr) => {
        $crate::suite::store_suite!(@tests $make;
            builds: history_keeps_what_it_is_told, a_page_follows_a_page, the_first_end_counts,
                a_crash_interrupts_what_ran, old_builds_go_with_their_logs, logs_are_capped,
                all_steps_of_a_large_build_are_kept;
            claims: a_claim_is_given_once, a_lapsed_claim_is_given_away, silence_loses_nothing_by_itself,
                a_lost_answer_may_be_asked_for_again, only_the_holder_completes, released_means_free,
                no_cache_runs_once_per_build, a_lost_worker_lapses, many_ask_at_once;
            layers: layers_keep_what_they_are_told, the_published_one_stays, an_unpublished_one_is_replaced,
                sources_are_the_last_seen, an_image_is_believed_until_its_layer_was_read,
                what_was_read_from_another_blob_does_not_count, removing_a_layer_makes_misses, encodings_are_found_by_diff_id;
            results: what_is_recorded_is_found, scopes_do_not_see_each_other, a_lost_layer_is_a_miss,
                a_lost_worker_takes_what_it_had_not_published, uses_reach_the_layers, unused_results_go_first;
            usage: room_adds_up, the_oldest_come_with_their_referrers;
            misc: settings_are_decided_once, workers_are_known_while_away;
        );
    };
    (@tests $make:expr; $($module:ident: $($test:ident),+;)+) => {
        $(mod $module {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let store = $make.await;
                $crate::suite::$module::$test(&*store).await;
            })+
        })+
    };
}
pub(crate) use store_suite;

const TTL: Duration = Duration::from_secs(30);

fn at(seconds: i64) -> UnixMillis {
    UnixMillis(1_700_000_000_000 + seconds * 1000)
}

fn scope() -> Scope {
    Scope::new("main")
}

fn key(name: &str) -> StepKey {
    StepKey(Digest::of(name))
}

fn layer(name: &str) -> LayerId {
    LayerId(Digest::of(name))
}

fn chain(names: &[&str]) -> Chain {
    Chain::new(names.iter().map(|name| layer(name)).collect())
}

fn platform(text: &str) -> Platform {
    text.parse().expect("a platform")
}

fn claim_of(name: &str) -> ClaimKey {
    ClaimKey::shared(key(name), scope())
}

fn only_for(name: &str, build: &str) -> ClaimKey {
    ClaimKey {
        only_for: Some(BuildId::new(build)),
        ..claim_of(name)
    }
}

fn held(claim: &ClaimKey, generation: Generation) -> HeldClaim {
    HeldClaim {
        claim: claim.clone(),
        generation,
    }
}

/// A worker that asks for a step in a job of its own.
fn by(worker: &str) -> ClaimedBy {
    ClaimedBy {
        worker: WorkerId::new(worker),
        job: JobId::new(format!("job-{worker}")),
        build: BuildId::new("build"),
        step: StepDigest(Digest::of("step")),
    }
}

pub(crate) fn result(worker: &str, layers: &[&str]) -> StepResult {
    StepResult {
        outputs: vec![Some(chain(layers)), None, Some(Chain::scratch())],
        created: at(-5),
        duration: Duration::from_millis(1234),
        worker: WorkerId::new(worker),
        platform: Some(platform("linux/arm/v6")),
        emulated: true,
        build: BuildId::new("build"),
        name: format!("RUN make {layers:?}"),
        log: Some(Digest::of("log")),
    }
}

/// Records a result the only way there is: under a claim.
async fn record(store: &dyn crate::Store, claim: &ClaimKey, result: &StepResult, now: UnixMillis) {
    let by = ClaimedBy {
        worker: result.worker.clone(),
        ..by("anyone")
    };
    let claimed = store
        .claim_step(claim, &by, now, TTL)
        .await
        .expect("claimed");
    let crate::Claim::Run { generation } = claimed else {
        panic!("{claimed:?}")
    };
    let completion = store
        .complete(&held(claim, generation), result, &[], now)
        .await
        .expect("completed");
    assert_eq!(completion, crate::Completion::Accepted);
}

async fn lookup(store: &dyn crate::Store, name: &str, now: UnixMillis) -> Option<StepResult> {
    let found = store
        .lookup(&[key(name)], &scope(), now)
        .await
        .expect("looked up");
    let result = found.into_iter().next().expect("one answer per key");
    result.map(|result| (*result).clone())
}
