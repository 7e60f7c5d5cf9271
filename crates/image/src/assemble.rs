//! A finished image's configuration: the frontend's template with the layers that came out.
//!
//! The frontend writes a history entry for each instruction, not knowing which layers there will be or when they were
//! made. Here both come together, by the rules of BuildKit's image writer (`exporter/containerimage/writer.go`).

use buildyard_model::Digest;

use crate::{History, ImageConfig, RootFs};

/// What the history says about a layer that no instruction accounts for.
const EXPORTER_COMMENT: &str = "buildkit.exporter.image.v0";

/// One layer of a finished image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRecord {
    /// SHA-256 of the layer's tar form.
    pub diff_id: Digest,
    /// RFC 3339 time at which the result was made, from its record; `None` where nobody knows (base images without it).
    pub created: Option<String>,
    /// What made the layer, for a history that doesn't mention it.
    pub description: String,
}

/// The configuration of an image made of `layers`, lowest first.
///
/// - Entries of the history beyond the number of layers become empty ones; layers beyond the entries get one each.
/// - An entry without a time gets that of its layer; an empty one that of the first layer made after it began to lack
///   times, else of the last one known.
/// - The image's own time is that of the last entry with one, unless the template has one.
/// - `epoch` (RFC 3339, UTC; from `SOURCE_DATE_EPOCH`) caps every time and becomes the image's own.
pub fn assemble_config(
    template: &ImageConfig,
    layers: &[LayerRecord],
    epoch: Option<&str>,
) -> ImageConfig {
    let mut config = template.clone();
    config.rootfs = RootFs {
        kind: "layers".to_owned(),
        diff_ids: layers
            .iter()
            .map(|layer| layer.diff_id.to_string())
            .collect(),
    };
    match_history(&mut config.history, layers);
    fill_times(&mut config.history);
    if let Some(epoch) = epoch {
        cap_times(&mut config.history, epoch);
        config.created = Some(epoch.to_owned());
    }
    if config.created.is_none() {
        config.created = config
            .history
            .iter()
            .rev()
            .find_map(|entry| entry.created.clone());
    }
    config
}

/// One non-empty entry per layer, with the layer's time where the entry has none.
fn match_history(history: &mut Vec<History>, layers: &[LayerRecord]) {
    let mut rest = layers.iter();
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        match rest.next() {
            Some(layer) => entry.created = entry.created.take().or_else(|| layer.created.clone()),
            None => entry.empty_layer = true,
        }
    }
    history.extend(rest.map(|layer| History {
        created: layer.created.clone(),
        created_by: layer.description.clone(),
        comment: EXPORTER_COMMENT.to_owned(),
        ..History::default()
    }));
}

/// Gives a time to the entries that have none. The instructions before the build's first layer get that layer's time, not
/// that of the base image.
fn fill_times(history: &mut [History]) {
    let first_without = history
        .iter()
        .position(|entry| entry.created.is_none())
        .unwrap_or(history.len());
    let after = history[first_without..]
        .iter()
        .find_map(|entry| entry.created.clone());
    let before = history[..first_without]
        .iter()
        .rev()
        .find_map(|entry| entry.created.clone());
    let mut current = after.or(before);
    for entry in &mut history[first_without..] {
        match &entry.created {
            Some(time) => current = Some(time.clone()),
            None => entry.created = current.clone(),
        }
    }
}

fn cap_times(history: &mut [History], epoch: &str) {
    let parse = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let limit = parse(epoch);
    for entry in history {
        let time = entry.created.as_deref().and_then(parse);
        if time.is_none() || time > limit {
            entry.created = Some(epoch.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> History {
        let (by, time) = text.split_once('@').unwrap_or((text, ""));
        let (by, empty) = by
            .strip_prefix('-')
            .map_or((by, false), |rest| (rest, true));
        History {
            created_by: by.to_owned(),
            created: (!time.is_empty()).then(|| format!("2026-01-0{time}T00:00:00Z")),
            empty_layer: empty,
            ..History::default()
        }
    }

    fn show(entry: &History) -> String {
        let empty = if entry.empty_layer { "-" } else { "" };
        let time = entry
            .created
            .as_deref()
            .map_or("", |time| &time["2026-01-0".len()..][..1]);
        let at = if time.is_empty() { "" } else { "@" };
        format!("{empty}{}{at}{time}", entry.created_by)
    }

    fn layer(day: &str) -> LayerRecord {
        let created = (!day.is_empty()).then(|| format!("2026-01-0{day}T00:00:00Z"));
        LayerRecord {
            diff_id: Digest::of(day),
            created,
            description: format!("made{day}"),
        }
    }

    fn assembled(history: &[&str], layers: &[&str], epoch: Option<&str>) -> ImageConfig {
        let template = ImageConfig {
            history: history.iter().map(|text| entry(text)).collect(),
            ..Default::default()
        };
        let layers: Vec<LayerRecord> = layers.iter().map(|day| layer(day)).collect();
        assemble_config(&template, &layers, epoch)
    }

    fn check(history: &[&str], layers: &[&str], expected: &[&str], created: Option<&str>) {
        let config = assembled(history, layers, None);
        let shown: Vec<String> = config.history.iter().map(show).collect();
        assert_eq!(shown, expected, "history {history:?}, layers {layers:?}");
        let day = config
            .created
            .map(|time| time["2026-01-0".len()..][..1].to_owned());
        assert_eq!(
            day.as_deref(),
            created,
            "history {history:?}, layers {layers:?}"
        );
        assert_eq!(config.rootfs.diff_ids.len(), layers.len());
    }

    #[test]
    fn history_and_layers_come_together() {
        check(&[], &[], &[], None);
        check(
            &["FROM@1", "RUN"],
            &["1", "3"],
            &["FROM@1", "RUN@3"],
            Some("3"),
        );
        check(
            &["FROM@1", "-ENV", "RUN", "-CMD"],
            &["1", "3"],
            &["FROM@1", "-ENV@3", "RUN@3", "-CMD@3"],
            Some("3"),
        );
        check(
            &["FROM@1", "-ENV"],
            &["1"],
            &["FROM@1", "-ENV@1"],
            Some("1"),
        );
        check(&["-ENV"], &[], &["-ENV"], None);
        check(
            &["A", "-E", "B"],
            &["2", "3"],
            &["A@2", "-E@3", "B@3"],
            Some("3"),
        );
    }

    #[test]
    fn a_history_that_does_not_fit_is_made_to() {
        check(
            &["FROM@1", "RUN@2"],
            &["1"],
            &["FROM@1", "-RUN@2"],
            Some("2"),
        );
        check(&["FROM@1"], &["1", "4"], &["FROM@1", "made4@4"], Some("4"));
    }

    #[test]
    fn the_template_keeps_its_own_time() {
        let template = ImageConfig {
            created: Some("2020-01-01T00:00:00Z".to_owned()),
            ..Default::default()
        };
        let config = assemble_config(&template, &[layer("3")], None);
        assert_eq!(config.created.as_deref(), Some("2020-01-01T00:00:00Z"));
    }

    #[test]
    fn an_epoch_caps_all_times() {
        let config = assembled(
            &["FROM@1", "RUN", "-CMD"],
            &["1", "5"],
            Some("2026-01-02T00:00:00Z"),
        );
        let shown: Vec<String> = config.history.iter().map(show).collect();
        assert_eq!(shown, ["FROM@1", "RUN@2", "-CMD@2"]);
        assert_eq!(config.created.as_deref(), Some("2026-01-02T00:00:00Z"));
    }
}
