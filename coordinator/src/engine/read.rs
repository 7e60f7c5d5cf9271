//! Reading single files of results, for clients that look into them through the gateway.

use std::io::{Read, Seek};
use std::sync::Arc;

use bollard_buildkit_proto::fsutil::types::Stat;
use buildyard_layer::{FileReader, Follow, Kind, Node, Tree, glob_match};
use buildyard_model::Chain;

use super::{Engine, internal};
use crate::backend::{Build, BuildError, ByteRange};
use crate::export::LayerBlobs;
use crate::layers::ExportLayers;

/// Most bytes of one read; messages are at most 16 MiB.
const MOST: u64 = 15 << 20;
