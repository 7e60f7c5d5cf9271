//! `type=oci` and `type=docker`: an image layout (OCI image specification v1.1, `image-layout.md`) as a tar stream to the
//! client; for Docker with the `manifest.json` that `docker load` reads. Members stand in the order of their names, with
//! fixed metadata, so the same image is the same archive.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use buildyard_image::{Descriptor, Index, MediaTypes};
use buildyard_model::Digest;
use buildyard_registry::{BlobStream, Reference};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use serde::Serialize;

use super::attributes::Attributes;
use super::compose::{Composition, ImageOptions};
use super::image::response;
use super::{ExportError, ExportRequest, LayerBlob, LayerBlobs};

const SENDING: &str = "sending tarball";

/// An image as an archive.
#[derive(Debug, Clone)]
pub(super) struct ArchiveExport {
    options: ImageOptions,
    docker: bool,
}

impl ArchiveExport {
    pub(super) fn parse(attributes: &mut Attributes) -> Result<Self, ExportError> {
        let docker = attributes.exporter() == "docker";
        let options = ImageOptions::parse(attributes, MediaTypes::oci(!docker))?;
        if attributes.flag("tar")? == Some(false) {
            return Err(attributes.refuse(
                "tar=false is not supported yet; leave it out and unpack the archive".to_owned(),
            ));
        }
        // Both only matter to the image exporter; clients send them with a default set for all.
        attributes.flag("push")?;
        attributes.flag("registry.insecure")?;
        Ok(Self { options, docker })
    }

    /// `oci` or `docker`.
    pub(super) fn format(&self) -> &'static str {
        if self.docker { "docker" } else { "oci" }
    }

    pub(super) async fn run(
        &self,
        request: &ExportRequest<'_>,
    ) -> Result<BTreeMap<String, String>, ExportError> {
        if self.docker && (request.multi_platform || request.images.len() != 1) {
            let cause = "docker exporter does not currently support exporting manifest lists";
            return Err(ExportError::Refused(cause.to_owned()));
        }
        let composition = self.options.compose(request).await?;
        let names: Vec<String> = self
            .options
            .names
            .iter()
            .map(Reference::to_string)
            .collect();
        let response = response(&composition, &names);
        let members = self.members(&composition);
        request.progress.begin(SENDING);
        for platform in &composition.platforms {
            for layer in &platform.layers {
                request.layers.prove(layer).await?;
            }
        }
        let sent = request
            .client
            .send_stream(&response, archive(members, request.layers.clone()))
            .await;
        if let Ok(bytes) = &sent {
            request.progress.moved(SENDING, *bytes, *bytes);
        }
        request.progress.end(SENDING);
        sent.map(|_| response)
    }

    /// The archive's members in order.
    fn members(&self, composition: &Composition) -> BTreeMap<String, Member> {
        let mut members = BTreeMap::new();
        members.insert("blobs/".to_owned(), Member::Directory);
        members.insert("blobs/sha256/".to_owned(), Member::Directory);
        let layout = Bytes::from_static(br#"{"imageLayoutVersion":"1.0.0"}"#);
        members.insert("oci-layout".to_owned(), Member::Bytes(layout));
        members.insert(
            "index.json".to_owned(),
            Member::Bytes(self.index_json(composition)),
        );
        if self.docker {
            members.insert(
                "manifest.json".to_owned(),
                Member::Bytes(self.manifest_json(composition)),
            );
        }
        for platform in &composition.platforms {
            for document in [&platform.manifest, &platform.config] {
                members.insert(
                    blob_path(document.descriptor.digest),
                    Member::Bytes(document.bytes.clone()),
                );
            }
            for layer in &platform.layers {
                members.insert(
                    blob_path(layer.descriptor.digest),
                    Member::Layer(Box::new(layer.clone())),
                );
            }
        }
        if let Some(index) = &composition.index {
            members.insert(
                blob_path(index.descriptor.digest),
                Member::Bytes(index.bytes.clone()),
            );
        }
        members
    }

    /// One entry for each name, annotated as containerd does.
    fn index_json(&self, composition: &Composition) -> Bytes {
        let root = &composition.root().descriptor;
        let named = self.options.names.iter().map(|name| {
            let mut entry = root.clone();
            let tag = name.tag.clone().unwrap_or_default();
            entry
                .annotations
                .insert("io.containerd.image.name".to_owned(), name.to_string());
            entry
                .annotations
                .insert("org.opencontainers.image.ref.name".to_owned(), tag);
            entry
        });
        let mut entries: Vec<Descriptor> = named.collect();
        if entries.is_empty() {
            entries.push(root.clone());
        }
        json(&Index::new(MediaTypes::Oci, entries))
    }

    /// What `docker load` reads (moby's image specification v1.2, "manifest.json").
    fn manifest_json(&self, composition: &Composition) -> Bytes {
        let entries = composition.platforms.iter().map(|platform| DockerManifest {
            config: blob_path(platform.config.descriptor.digest),
            repo_tags: self.options.names.iter().map(familiar).collect(),
            layers: platform
                .layers
                .iter()
                .map(|layer| blob_path(layer.descriptor.digest))
                .collect(),
        });
        json(&entries.collect::<Vec<_>>())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// A name without what Docker leaves out.
fn familiar(name: &Reference) -> String {
    let full = name.to_string();
    let short = full.strip_prefix("docker.io/").unwrap_or(&full);
    short
        .strip_prefix("library/")
        .filter(|_| short.len() < full.len())
        .unwrap_or(short)
        .to_owned()
}

fn blob_path(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn json<T: Serialize>(document: &T) -> Bytes {
    serde_json::to_vec(document)
        .expect("these documents have string keys only and no failing serializer")
        .into()
}

enum Member {
    Directory,
    Bytes(Bytes),
    Layer(Box<LayerBlob>),
}

/// The tar stream. Each layer is opened when its turn comes and checked on the way.
fn archive(members: BTreeMap<String, Member>, layers: Arc<dyn LayerBlobs>) -> BlobStream {
    let members = stream::iter(members)
        .flat_map(move |(path, member)| member_stream(path, member, layers.clone()));
    let end = stream::once(std::future::ready(Ok(Bytes::from_static(&[0; 1024]))));
    members.chain(end).boxed()
}

fn member_stream(path: String, member: Member, layers: Arc<dyn LayerBlobs>) -> BlobStream {
    let size = match &member {
        Member::Directory => 0,
        Member::Bytes(bytes) => bytes.len() as u64,
        Member::Layer(layer) => layer.descriptor.size,
    };
    let header = header(&path, matches!(member, Member::Directory), size);
    let body = match member {
        Member::Directory => stream::empty().boxed(),
        Member::Bytes(bytes) => stream::once(std::future::ready(Ok(bytes))).boxed(),
        Member::Layer(layer) => layer_stream(*layer, layers),
    };
    // At most 511, which fits.
    let padding = Bytes::from(vec![0; (size.next_multiple_of(512) - size) as usize]);
    stream::once(std::future::ready(header))
        .chain(body)
        .chain(stream::once(std::future::ready(Ok(padding))))
        .boxed()
}

fn layer_stream(layer: LayerBlob, layers: Arc<dyn LayerBlobs>) -> BlobStream {
    let opened = async move {
        match layers.open(&layer).await {
            Ok(bytes) => bytes,
            Err(error) => stream::once(std::future::ready(Err(io::Error::other(error)))).boxed(),
        }
    };
    stream::once(opened).flatten().boxed()
}

fn header(path: &str, directory: bool, size: u64) -> io::Result<Bytes> {
    let mut header = tar::Header::new_ustar();
    header.set_path(path)?;
    header.set_entry_type(if directory {
        tar::EntryType::Directory
    } else {
        tar::EntryType::Regular
    });
    header.set_mode(if directory { 0o755 } else { 0o444 });
    header.set_size(size);
    header.set_cksum();
    Ok(Bytes::copy_from_slice(header.as_bytes()))
}
