//! Exporters over layers in memory: what registries and clients get, read back by other programs where there are some.

mod files;
mod layers;
mod layouts;
mod push;

use std::collections::BTreeMap;
use std::sync::Arc;

use buildyard_coordinator::export::{Export, ExportError, ExportRequest, PlatformImage};
use buildyard_registry::{NoAuth, Registry, RegistryConfig};

use layers::{Client, Layers, Shown};

/// An export's surroundings.
struct Bench {
    layers: Arc<Layers>,
    registry: Registry,
    client: Client,
    shown: Shown,
}

impl Bench {
    fn new() -> Self {
        let registry = Registry::new(RegistryConfig::default(), Arc::new(NoAuth));
        Self {
            layers: Layers::new(),
            registry,
            client: Client::default(),
            shown: Shown::default(),
        }
    }

    async fn export(
        &self,
        kind: &str,
        attrs: &[(&str, &str)],
        images: &[PlatformImage],
    ) -> Result<BTreeMap<String, String>, ExportError> {
        let export = parse(kind, attrs)?;
        let request = ExportRequest {
            images,
            multi_platform: images.len() > 1,
            layers: self.layers.clone(),
            registry: &self.registry,
            client: &self.client,
            progress: &self.shown,
        };
        export.run(&request).await
    }
}

fn parse(kind: &str, attrs: &[(&str, &str)]) -> Result<Export, ExportError> {
    let attrs = attrs
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    Export::parse(kind, &attrs)
}

#[test]
fn attributes_without_effect_are_taken_and_what_cannot_be_done_is_refused_by_name() {
    let check = |kind: &str, name: &str, value: &str, expected: Result<(), &str>| {
        let parsed = parse(kind, &[("name", "localhost/a"), (name, value)])
            .map(drop)
            .map_err(|error| error.to_string());
        match expected {
            Ok(()) => assert_eq!(parsed, Ok(()), "{kind} {name}={value}"),
            Err(part) => assert!(
                parsed.as_ref().is_err_and(|text| text.contains(part)),
                "{kind} {name}={value}: {parsed:?}"
            ),
        }
    };
    for (name, value) in [
        ("push", "true"),
        ("push", ""),
        ("unpack", "true"),
        ("store", "false"),
        ("name-canonical", ""),
        ("compression", "zstd"),
        ("compression-level", "9"),
        ("force-compression", "true"),
        ("rewrite-timestamp", "false"),
        ("annotation.org.opencontainers.image.title", "x"),
    ] {
        check("image", name, value, Ok(()));
    }
    // A client that loads images into a Docker engine sends it (buildx 0.29).
    check("oci", "prefer-image-digest", "true", Ok(()));
    let unknown = parse("image", &[("name", "a"), ("pusch", "true"), ("unpack", "")]);
    assert_eq!(unknown.expect("taken").unknown(), ["pusch"]);
    check(
        "image",
        "push",
        "maybe",
        Err("non-bool value \"maybe\" specified for push"),
    );
    check(
        "image",
        "compression",
        "estargz",
        Err("\"estargz\" is not supported"),
    );
    check(
        "image",
        "compression-level",
        "10",
        Err("not a level of gzip (0 to 9)"),
    );
    check(
        "image",
        "rewrite-timestamp",
        "true",
        Err("rewrite-timestamp is not supported"),
    );
    check("image", "name", "UPPER", Err("failed to parse \"UPPER\""));
    check(
        "image",
        "source-date-epoch",
        "yesterday",
        Err("Unix seconds"),
    );
    check("oci", "tar", "false", Err("tar=false is not supported"));
    check("docker", "tar", "true", Ok(()));
    check(
        "nonsense",
        "a",
        "b",
        Err("exporter \"nonsense\" could not be found"),
    );
    let error = parse("image", &[("push", "true")])
        .map(drop)
        .map_err(|error| error.to_string());
    assert_eq!(
        error,
        Err("output type=image: tag is needed when pushing to registry".to_owned())
    );
}

#[test]
fn an_export_has_the_name_that_clients_show() {
    let check = |kind: &str, expected: &str| {
        assert_eq!(
            parse(kind, &[]).map(|e| e.name()).ok().as_deref(),
            Some(expected)
        )
    };
    check("image", "exporting to image");
    check("oci", "exporting to oci image format");
    check("docker", "exporting to docker image format");
    check("local", "exporting to client directory");
    check("tar", "exporting to client tarball");
}
