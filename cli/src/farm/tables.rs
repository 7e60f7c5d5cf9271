//! The API's answers as tables for people. Pure: "now" is an argument.

use buildyard_model::api::{BuildDetail, BuildSummary, StepInfo, WorkerInfo, WorkerPlatform};
use comfy_table::{Table, presets};
use jiff::Timestamp;

/// The workers.
pub fn workers_table(workers: &[WorkerInfo], now: Timestamp) -> String {
    let mut table = table(&["WORKER", "STATE", "RUNNING", "PLATFORMS", "LAST SEEN"]);
    for worker in workers {
        table.add_row([
            worker.id.clone(),
            if worker.connected {
                "connected"
            } else {
                "away"
            }
            .to_owned(),
            format!("{}/{}", worker.running, worker.slots),
            worker
                .platforms
                .iter()
                .map(platform)
                .collect::<Vec<_>>()
                .join(", "),
            worker
                .last_seen
                .as_deref()
                .map_or_else(|| "-".into(), |at| ago(at, now)),
        ]);
    }
    finished(&table)
}

/// The list of builds.
pub fn builds_table(builds: &[BuildSummary], now: Timestamp) -> String {
    let mut table = table(&[
        "BUILD",
        "OUTCOME",
        "STARTED",
        "TOOK",
        "STEPS",
        "CACHED",
        "PLATFORMS",
    ]);
    for build in builds {
        table.add_row([
            build.id.clone(),
            build.outcome.as_str().to_owned(),
            build
                .started
                .as_deref()
                .map_or_else(|| "-".into(), |at| ago(at, now)),
            took(build.started.as_deref(), build.finished.as_deref()),
            build.steps_total.to_string(),
            build.steps_cached.to_string(),
            build.platforms.join(", "),
        ]);
    }
    finished(&table)
}

/// What the list shows of one build, and its error, as lines.
pub fn build_table(build: &BuildDetail) -> String {
    let summary = &build.summary;
    let mut lines = vec![
        format!("build      {}", summary.id),
        format!("outcome    {}", summary.outcome.as_str()),
        format!("started    {}", summary.started.as_deref().unwrap_or("-")),
        format!(
            "took       {}",
            took(summary.started.as_deref(), summary.finished.as_deref())
        ),
        format!("platforms  {}", summary.platforms.join(", ")),
        format!(
            "steps      {}, {} of them cached",
            summary.steps_total, summary.steps_cached
        ),
    ];
    lines.extend(
        summary
            .error
            .as_ref()
            .map(|error| format!("error      {error}")),
    );
    lines.join("\n") + "\n"
}

/// The steps of one build, numbered as `builds logs` counts them.
pub fn steps_table(steps: &[StepInfo]) -> String {
    let mut table = table(&["STEP", "NAME", "PLATFORM", "WHERE", "HOW", "TOOK"]);
    for (index, step) in steps.iter().enumerate() {
        table.add_row([
            (index + 1).to_string(),
            step.name
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(100)
                .collect(),
            step.platform.clone().unwrap_or_else(|| "-".into()),
            step.worker.clone().unwrap_or_else(|| "-".into()),
            how(step).to_owned(),
            took(step.started.as_deref(), step.completed.as_deref()),
        ]);
    }
    finished(&table)
}

fn how(step: &StepInfo) -> &'static str {
    match step {
        StepInfo {
            error: Some(error), ..
        } if error == "context canceled" => "canceled",
        StepInfo { error: Some(_), .. } => "failed",
        StepInfo { cached: true, .. } => "cached",
        StepInfo { started: None, .. } => "-",
        StepInfo {
            completed: None, ..
        } => "running",
        StepInfo { emulated: true, .. } => "emulated",
        StepInfo {
            platform: Some(_),
            worker: Some(_),
            ..
        } => "native",
        _ => "done",
    }
}

fn platform(platform: &WorkerPlatform) -> String {
    let how = if platform.emulated { " (emulated)" } else { "" };
    format!("{}{how}", platform.platform)
}

fn ago(at: &str, now: Timestamp) -> String {
    let Ok(at) = at.parse::<Timestamp>() else {
        return at.to_owned();
    };
    match now.as_second().saturating_sub(at.as_second()).max(0) {
        seconds if seconds < 60 => format!("{seconds}s ago"),
        seconds if seconds < 3600 => format!("{}m ago", seconds / 60),
        seconds if seconds < 86_400 => format!("{}h ago", seconds / 3600),
        seconds => format!("{}d ago", seconds / 86_400),
    }
}

fn took(started: Option<&str>, ended: Option<&str>) -> String {
    let parse = |at: Option<&str>| at?.parse::<Timestamp>().ok();
    match (parse(started), parse(ended)) {
        (Some(started), Some(ended)) => {
            let tenths = (ended.as_millisecond() - started.as_millisecond()).max(0) as f64 / 1000.0;
            if tenths < 60.0 {
                format!("{tenths:.1}s")
            } else {
                format!("{}m{:02}s", tenths as u64 / 60, tenths as u64 % 60)
            }
        }
        _ => "-".into(),
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.iter().copied());
    table
}

fn finished(table: &Table) -> String {
    table
        .lines()
        .map(|line| line.trim().to_owned() + "\n")
        .collect()
}

#[cfg(test)]
mod tests {
    use buildyard_model::api::BuildOutcome;

    use super::*;

    fn now() -> Timestamp {
        "2026-08-01T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn workers_say_what_is_emulated() {
        let worker = WorkerInfo {
            id: "w1".into(),
            platforms: vec![
                WorkerPlatform {
                    platform: "linux/amd64".into(),
                    emulated: false,
                },
                WorkerPlatform {
                    platform: "linux/arm64".into(),
                    emulated: true,
                },
            ],
            slots: 4,
            running: 1,
            connected: true,
            last_seen: Some("2026-08-01T11:58:00Z".into()),
        };
        let text = workers_table(&[worker], now());
        let words: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            words[0],
            ["WORKER", "STATE", "RUNNING", "PLATFORMS", "LAST", "SEEN"]
        );
        assert_eq!(
            words[1],
            [
                "w1",
                "connected",
                "1/4",
                "linux/amd64,",
                "linux/arm64",
                "(emulated)",
                "2m",
                "ago"
            ]
        );
    }

    #[test]
    fn builds_and_steps_say_how_long_they_took() {
        let build = BuildSummary {
            id: "b1".into(),
            started: Some("2026-08-01T11:00:00Z".into()),
            finished: Some("2026-08-01T11:01:05.5Z".into()),
            outcome: BuildOutcome::Failed,
            platforms: vec!["linux/arm64".into()],
            steps_total: 7,
            steps_cached: 3,
            error: Some("no".into()),
        };
        let text = builds_table(std::slice::from_ref(&build), now());
        let words: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            words,
            [
                "b1",
                "failed",
                "1h",
                "ago",
                "1m05s",
                "7",
                "3",
                "linux/arm64"
            ]
        );
        let detail = BuildDetail {
            summary: build,
            steps: Vec::new(),
        };
        assert!(build_table(&detail).contains("error      no\n"));
    }

    #[test]
    fn steps_say_how_they_came_about() {
        let step = |change: &dyn Fn(&mut StepInfo)| {
            let mut step = StepInfo {
                started: Some("2026-08-01T10:59:00Z".into()),
                completed: Some("2026-08-01T11:00:00Z".into()),
                ..StepInfo::default()
            };
            change(&mut step);
            how(&step)
        };
        assert_eq!(step(&|s| s.cached = true), "cached");
        assert_eq!(step(&|s| s.emulated = true), "emulated");
        assert_eq!(step(&|s| s.error = Some(String::new())), "failed");
        assert_eq!(step(&|s| s.completed = None), "running");
        assert_eq!(step(&|s| s.started = None), "-");
        assert_eq!(step(&|_| {}), "done");
        assert_eq!(
            step(&|s| (s.platform, s.worker) = (Some("linux/amd64".into()), Some("w".into()))),
            "native"
        );
    }
}
