//! Exporters: what becomes of a finished build.
//!
//! [`Export::parse`] reads an output of a solve request, [`Export::run`] does it. Images go to registries
//! (`type=image`) or as archives to the client (`type=oci`, `type=docker`); file systems go to the client
//! (`type=local`, `type=tar`). Where layers come from is the business of whoever implements [`LayerBlobs`]; how the
//! client is reached that of [`ClientSink`].

mod annotations;
mod archive;
mod attributes;
mod compose;
mod error;
mod files;
mod image;
mod seam;
mod session;
mod tree;

use std::collections::BTreeMap;

use attributes::Attributes;

pub use error::ExportError;
pub use seam::{
    ClientSink, ExportProgress, ExportRequest, ImageLayer, LayerBlob, LayerBlobs, PlatformImage,
};
pub use session::SessionSink;

/// One output of a build, its attributes understood.
#[derive(Debug, Clone)]
pub struct Export {
    kind: Kind,
    /// Attributes that are not known.
    unknown: Vec<String>,
}

#[derive(Debug, Clone)]
enum Kind {
    Image(image::ImageExport),
    Archive(archive::ArchiveExport),
    Files(files::FilesExport),
}

impl Export {
    /// Reads an output: its type (`image`, `oci`, `docker`, `local`, `tar`) and its attributes. Whatever
    /// can't be done is refused by name, before anything is built.
    pub fn parse(kind: &str, attrs: &BTreeMap<String, String>) -> Result<Self, ExportError> {
        let mut attributes = Attributes::new(kind, attrs);
        let kind = match kind {
            "image" => Kind::Image(image::ImageExport::parse(&mut attributes)?),
            "oci" | "docker" => Kind::Archive(archive::ArchiveExport::parse(&mut attributes)?),
            "local" | "tar" => Kind::Files(files::FilesExport::parse(&mut attributes)?),
            other => {
                let cause = format!(
                    "exporter {other:?} could not be found (there are image, oci, docker, local, tar)"
                );
                return Err(ExportError::Refused(cause));
            }
        };
        let unknown = attributes.unknown();
        Ok(Self { kind, unknown })
    }

    /// Attributes that have no effect because nobody knows them.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// The name of the export's vertex, as BuildKit's.
    pub fn name(&self) -> String {
        match &self.kind {
            Kind::Image(_) => "exporting to image".to_owned(),
            Kind::Archive(archive) => format!("exporting to {} image format", archive.format()),
            Kind::Files(files) if files.is_tar() => "exporting to client tarball".to_owned(),
            Kind::Files(_) => "exporting to client directory".to_owned(),
        }
    }

    /// Exports. Returns what goes into the solve response: `containerimage.digest`, `containerimage.config.digest`,
    /// `containerimage.descriptor`, `image.name`.
    pub async fn run(
        &self,
        request: &ExportRequest<'_>,
    ) -> Result<BTreeMap<String, String>, ExportError> {
        match &self.kind {
            Kind::Image(image) => image.run(request).await,
            Kind::Archive(archive) => archive.run(request).await,
            Kind::Files(files) => files.run(request).await,
        }
    }
}
