//! What takes room in the store, as BuildKit's clients list and prune it (`docker buildx du`, `docker buildx prune`).
//!
//! One record per flat file or blob. Filters: `id`, `type`, `inuse`, `mutable`, `shared`, each `KEY==VALUE`, `KEY=VALUE`,
//! `KEY!=VALUE` or `KEY~=SUBSTRING`; all of them must hold.

use std::time::Duration;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{DiskUsageRequest, PruneRequest, UsageRecord};
use buildyard_cas::free_space;
use buildyard_store::{Candidate, ItemKind, Referrer, UnixMillis};

use super::{Engine, internal};
use crate::backend::BuildError;

impl Engine {
    /// Everything in the store that passes the request's filters, the least recently used first.
    pub(super) async fn room_taken(
        &self,
        request: &DiskUsageRequest,
    ) -> Result<Vec<UsageRecord>, BuildError> {
        let filters = filters(&request.filter)?;
        let youngest = youngest(request.age_limit);
        let records = self.listed().await?.into_iter().map(|(_, record)| record);
        Ok(records
            .filter(|record| passes(record, &filters) && old_enough(record, youngest))
            .collect())
    }

    /// Removes what passes the filters and no running build needs, the least recently used first, until the request's
    /// limits hold. Returns what went.
    pub(super) async fn pruned(
        &self,
        request: &PruneRequest,
    ) -> Result<Vec<UsageRecord>, BuildError> {
        let filters = filters(&request.filter)?;
        let youngest = youngest(request.keep_duration);
        let listed = self.listed().await?;
        let taken: u64 = listed.iter().map(|(candidate, _)| candidate.bytes).sum();
        let free = free_space(self.keeper.dir()).map_err(internal)?;
        let mut excess = prune_target(request, taken, free);
        let mut victims = Vec::new();
        let mut records = Vec::new();
        for (candidate, record) in listed {
            if excess == 0 {
                break;
            }
            if record.in_use || !passes(&record, &filters) || !old_enough(&record, youngest) {
                continue;
            }
            excess = excess.saturating_sub(candidate.bytes);
            records.push((candidate.item.clone(), record));
            victims.push(candidate);
        }
        let removed = self.keeper.remove(victims).await.map_err(internal)?;
        records.retain(|(item, _)| removed.iter().any(|gone| gone.candidate.item == *item));
        Ok(records.into_iter().map(|(_, record)| record).collect())
    }

    async fn listed(&self) -> Result<Vec<(Candidate, UsageRecord)>, BuildError> {
        let candidates = self.keeper.candidates().await.map_err(internal)?;
        let listed = candidates.into_iter().map(|candidate| {
            let record = record(&candidate, self.keeper.is_needed(&candidate));
            (candidate, record)
        });
        Ok(listed.collect())
    }
}

/// How many bytes a prune wants gone: all, unless it names what may stay.
fn prune_target(request: &PruneRequest, taken: u64, free: u64) -> u64 {
    let bound = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    let keep = bound(request.reserved_space).unwrap_or(0);
    let most = taken.saturating_sub(keep);
    match (bound(request.max_used_space), bound(request.min_free_space)) {
        (None, None) => most,
        (used, wanted) => {
            let over = used.map_or(0, |used| taken.saturating_sub(used));
            let short = wanted.map_or(0, |wanted| wanted.saturating_sub(free));
            most.min(over.max(short))
        }
    }
}

fn record(candidate: &Candidate, in_use: bool) -> UsageRecord {
    let (mut description, mut shared) = (String::new(), candidate.needed_by.len() > 1);
    for referrer in &candidate.needed_by {
        let text = match referrer {
            Referrer::Layer(layer) if candidate.item.kind == ItemKind::Blob => {
                format!("table of contents of layer {layer}")
            }
            Referrer::Layer(layer) => format!("files of layer {layer}"),
            Referrer::Pulled(layer) => format!("pulled form of layer {layer}"),
            Referrer::Encoding(layer) => format!("encoded form of layer {layer}"),
            Referrer::Log(build) => format!("log of build {build}"),
        };
        if description.is_empty() {
            description = text;
        }
    }
    if candidate.needed_by.is_empty() {
        description = "nothing refers to it".to_owned();
        shared = false;
    }
    UsageRecord {
        id: candidate.item.id.clone(),
        mutable: false,
        in_use,
        size: i64::try_from(candidate.bytes).unwrap_or(i64::MAX),
        last_used_at: (candidate.used.0 > 0).then(|| timestamp(candidate.used)),
        usage_count: 1,
        description,
        record_type: "regular".to_owned(),
        shared,
        ..UsageRecord::default()
    }
}

fn timestamp(time: UnixMillis) -> Timestamp {
    Timestamp {
        seconds: time.0.div_euclid(1000),
        nanos: i32::try_from(time.0.rem_euclid(1000) * 1_000_000).unwrap_or(0),
    }
}

/// Uses after this are too young; `None`: age does not matter.
fn youngest(age_nanos: i64) -> Option<UnixMillis> {
    let age = u64::try_from(age_nanos).ok().filter(|age| *age > 0)?;
    Some(super::now().minus(Duration::from_nanos(age)))
}

fn old_enough(record: &UsageRecord, youngest: Option<UnixMillis>) -> bool {
    let Some(youngest) = youngest else {
        return true;
    };
    let used = record.last_used_at.as_ref();
    used.is_none_or(|used| used.seconds.saturating_mul(1000) <= youngest.0)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Different,
    Contains,
}

/// A filter: a field, and what it must be.
#[derive(Debug, PartialEq, Eq)]
struct Filter {
    key: String,
    comparison: Comparison,
    value: String,
}

/// Reads the filters; an entry may hold several, with commas between them.
fn filters(texts: &[String]) -> Result<Vec<Filter>, BuildError> {
    let parts = texts.iter().flat_map(|text| text.split(','));
    parts
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(filter)
        .collect()
}

fn filter(text: &str) -> Result<Filter, BuildError> {
    let signs = [
        ("==", Comparison::Equal),
        ("!=", Comparison::Different),
        ("~=", Comparison::Contains),
        ("=", Comparison::Equal),
    ];
    let split = signs.iter().find_map(|(sign, comparison)| {
        let (key, value) = text.split_once(sign)?;
        Some((key, *comparison, value))
    });
    let (key, comparison, value) = match split {
        Some(split) => split,
        // A bare name asks for what is so.
        None => (text, Comparison::Equal, "true"),
    };
    if !["id", "type", "inuse", "mutable", "shared"].contains(&key) {
        return Err(BuildError::invalid(format!(
            "filter {text:?} is not supported (id, type, inuse, mutable, shared are)"
        )));
    }
    Ok(Filter {
        key: key.to_owned(),
        comparison,
        value: value.trim_matches('"').to_owned(),
    })
}

fn passes(record: &UsageRecord, filters: &[Filter]) -> bool {
    filters.iter().all(|filter| {
        let value = match filter.key.as_str() {
            "id" => record.id.clone(),
            "type" => record.record_type.clone(),
            "inuse" => record.in_use.to_string(),
            "mutable" => record.mutable.to_string(),
            _ => record.shared.to_string(),
        };
        match filter.comparison {
            Comparison::Equal => value == filter.value,
            Comparison::Different => value != filter.value,
            Comparison::Contains => value.contains(&filter.value),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prune_goes_as_far_as_it_is_asked_to() {
        let check = |reserved, max_used, min_free, expected| {
            let request = PruneRequest {
                reserved_space: reserved,
                max_used_space: max_used,
                min_free_space: min_free,
                ..PruneRequest::default()
            };
            assert_eq!(prune_target(&request, 100, 10), expected);
        };
        check(0, 0, 0, 100);
        check(30, 0, 0, 70);
        check(0, 60, 0, 40);
        check(0, 0, 25, 15);
        check(0, 60, 80, 70);
        check(90, 60, 80, 10);
    }

    #[test]
    fn filters_are_read_and_held_against_records() {
        let used = UsageRecord {
            id: "sha256:ab".to_owned(),
            in_use: true,
            record_type: "regular".to_owned(),
            ..UsageRecord::default()
        };
        let check = |text: &str, expected| {
            let filters = filters(&[text.to_owned()]).expect("a filter");
            assert_eq!(passes(&used, &filters), expected, "{text}");
        };
        check("", true);
        check("inuse", true);
        check("inuse==false", false);
        check("id~=56:a", true);
        check("type!=regular", false);
        check("id=sha256:ab,mutable=false", true);
        assert!(filters(&["color=red".to_owned()]).is_err());
    }
}
