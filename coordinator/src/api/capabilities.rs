//! What `Ping` advertises. Clients gate features on these ids, so each is here only when it is true.
//!
//! The ids are BuildKit's (`solver/pb/caps.go`, `frontend/gateway/pb/caps.go`). What is missing is missing on purpose:
//! attestations above all, because buildx adds provenance to every push once they are advertised.

use bollard_buildkit_proto::moby::buildkit::v1::apicaps::ApiCap;

/// Operations, sources, mounts and exporters of the engine.
const LLB: &[&str] = &[
    "source.image",
    "source.image.resolvemode",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.local.differ",
    "exec.meta.base",
    "exec.meta.network",
    "exec.meta.proxyenv",
    "exec.meta.setsdefaultpath",
    "exec.meta.ulimit",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.selector",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.mount.secret",
    "exec.secretenv",
    "exec.validexitcode",
    "file.base",
    "file.rm.wildcard",
    "file.rm.nofollowsymlink",
    "file.copy.includeexcludepatterns",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.modestring",
    "file.copy.requiredpaths",
    "file.symlink.create",
    "platform",
    "meta.ignorecache",
    "meta.description",
    "mergeop",
    "diffop",
    "exporter.multiple",
];

/// Calls of the gateway. Containers (`gateway.exec`) and `importcaches` are not among them.
const GATEWAY: &[&str] = &[
    "solve.base",
    "resolveimage",
    "resolveimage.resolvemode",
    "source.metaresolver",
    "readfile",
    "readdir",
    "statfile",
    "return",
    "returnmap",
    "proto.refarray",
    "reference.output",
    "frontend.caps",
    "gateway.solve.metadata",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
];

/// Capabilities of graphs.
pub(crate) fn llb() -> Vec<ApiCap> {
    enabled(LLB)
}

/// Capabilities of the gateway.
pub(crate) fn gateway() -> Vec<ApiCap> {
    enabled(GATEWAY)
}

fn enabled(ids: &[&str]) -> Vec<ApiCap> {
    ids.iter()
        .map(|id| ApiCap {
            id: (*id).to_owned(),
            enabled: true,
            ..Default::default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_change_a_clients_defaults_is_not_advertised() {
        let all: Vec<_> = LLB.iter().chain(GATEWAY).collect();
        for id in [
            "exporter.image.attestations",
            "reference.attestations",
            "gateway.exec",
            "frontend.inputs",
            "history.filter",
        ] {
            assert!(!all.contains(&&id), "{id}");
        }
        let mut once = all.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), all.len());
    }
}
