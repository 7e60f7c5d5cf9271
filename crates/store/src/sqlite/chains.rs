//! Chains of layers: each is stored once, as its top layer over the chain below it.
//!
//! Recording the result of a step on a long chain adds one row, not one per layer; what many results have in common is
//! read, and noted as used, once. Which results contain a layer is found upwards: the chains that it is on top of, the
//! chains that build on those, the results that have one of them.

use std::collections::{HashMap, HashSet};

use buildyard_model::{Chain, Digest, LayerId};
use serde_json::json;
use sqlx::SqliteConnection;

use super::columns::{During, corrupt, digest, from_json, hex_list, to_json};
use super::db::{Db, commit};
use crate::StoreError;

/// How many results are converted, or loose chains looked at, in one go.
const BATCH: u32 = 500;

/// What `results.outputs` holds: a chain's id in hex, nothing for the chain of no layers, null for no output.
fn outputs_text(outputs: &[Option<Chain>]) -> String {
    let outputs = outputs.iter().map(|output| output.as_ref().map(name));
    to_json(&outputs.collect::<Vec<Option<String>>>())
}

fn name(chain: &Chain) -> String {
    match chain.layers().is_empty() {
        true => String::new(),
        false => chain.id().hex(),
    }
}

/// Records the chains of a result's outputs where they are not recorded. Returns what `results.outputs` is to hold.
pub(super) async fn insert_chains(
    tx: &mut SqliteConnection,
    outputs: &[Option<Chain>],
) -> Result<String, StoreError> {
    for chain in outputs.iter().flatten() {
        insert_chain(tx, chain).await?;
    }
    Ok(outputs_text(outputs))
}

/// Records a chain and those below it, from the top down to the first that is there.
async fn insert_chain(tx: &mut SqliteConnection, chain: &Chain) -> Result<(), StoreError> {
    let Some((top, below)) = chain.layers().split_last() else {
        return Ok(());
    };
    // Nearly always just the step's own layer is new: no need to hash what is below it layer by layer.
    let lower = (!below.is_empty()).then(|| Chain::new(below.to_vec()).id());
    let known = match lower {
        Some(lower) => has_chain(tx, lower).await?,
        None => true,
    };
    let missing = match known {
        true => vec![node(chain.id(), lower, top)],
        false => nodes(chain),
    };
    sqlx::query(
        "INSERT OR IGNORE INTO chains (id, below, layer) \
         SELECT unhex(value ->> 0), unhex(value ->> 1), unhex(value ->> 2) FROM json_each(?1)",
    )
    .bind(to_json(&missing))
    .execute(tx)
    .await
    .during("recording a chain of layers")?;
    Ok(())
}

fn node(id: Digest, below: Option<Digest>, layer: &LayerId) -> serde_json::Value {
    json!([id.hex(), below.map(|below| below.hex()), layer.0.hex()])
}

/// Every part of a chain that begins at its bottom.
fn nodes(chain: &Chain) -> Vec<serde_json::Value> {
    let mut below = None;
    let parts = chain.ids().zip(chain.layers());
    let nodes = parts.map(|(id, layer)| node(id, below.replace(id), layer));
    nodes.collect()
}

async fn has_chain(tx: &mut SqliteConnection, id: Digest) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM chains WHERE id = ?1)")
        .bind(&id.as_bytes()[..])
        .fetch_one(tx)
        .await
        .during("looking for a chain of layers")
}

/// Notes which chains a result has.
pub(super) async fn insert_result_chains(
    tx: &mut SqliteConnection,
    result: i64,
    outputs: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR IGNORE INTO result_chains (chain, result) \
         SELECT unhex(value), ?2 FROM json_each(?1) WHERE value <> ''",
    )
    .bind(outputs)
    .bind(result)
    .execute(tx)
    .await
    .during("recording a result's chains")?;
    Ok(())
}

/// Chains by the hex of their ids.
#[derive(Debug, Default)]
pub(super) struct Read(HashMap<String, Chain>);

impl Read {
    /// The outputs of a result whose chains were read.
    pub(super) fn outputs(&self, text: &str) -> Result<Vec<Option<Chain>>, StoreError> {
        let names: Vec<Option<String>> = from_json("results.outputs", text)?;
        let chain = |name: String| match self.0.get(&name) {
            Some(chain) => Ok(chain.clone()),
            None if name.is_empty() => Ok(Chain::scratch()),
            None => Err(corrupt("results.outputs", name)),
        };
        let outputs = names.into_iter().map(|name| name.map(chain).transpose());
        outputs.collect()
    }
}

/// A row of `chains`.
#[derive(sqlx::FromRow)]
struct NodeRow {
    id: Vec<u8>,
    below: Option<Vec<u8>>,
    layer: Vec<u8>,
}

/// Reads the chains that these values of `results.outputs` name; what they have in common once.
pub(super) async fn read(
    tx: &mut SqliteConnection,
    outputs: impl Iterator<Item = &str>,
) -> Result<Read, StoreError> {
    let mut asked: HashSet<String> = HashSet::new();
    for text in outputs {
        let names: Vec<Option<String>> = from_json("results.outputs", text)?;
        asked.extend(names.into_iter().flatten().filter(|name| !name.is_empty()));
    }
    if asked.is_empty() {
        return Ok(Read::default());
    }
    let asked: Vec<String> = asked.into_iter().collect();
    let rows: Vec<NodeRow> = sqlx::query_as(
        "WITH RECURSIVE below (id) AS (SELECT unhex(value) FROM json_each(?1) \
         UNION SELECT chains.below FROM below JOIN chains ON chains.id = below.id WHERE chains.below IS NOT NULL) \
         SELECT chains.* FROM below JOIN chains ON chains.id = below.id",
    )
    .bind(to_json(&asked))
    .fetch_all(tx)
    .await
    .during("reading chains of layers")?;
    let mut nodes = HashMap::with_capacity(rows.len());
    for row in rows {
        let below = row.below.map(|below| digest("chains.below", &below));
        let layer = LayerId(digest("chains.layer", &row.layer)?);
        nodes.insert(digest("chains.id", &row.id)?, (below.transpose()?, layer));
    }
    let assembled = asked.into_iter().map(|name| {
        let chain = assemble(&nodes, &name)?;
        Ok((name, chain))
    });
    Ok(Read(assembled.collect::<Result<_, StoreError>>()?))
}

fn assemble(
    nodes: &HashMap<Digest, (Option<Digest>, LayerId)>,
    name: &str,
) -> Result<Chain, StoreError> {
    let lost = || corrupt("results.outputs", name);
    let top = format!("sha256:{name}").parse().map_err(|_| lost())?;
    let (mut layers, mut next) = (Vec::new(), Some(top));
    while let Some(id) = next {
        let (below, layer) = nodes.get(&id).ok_or_else(lost)?;
        layers.push(*layer);
        next = *below;
    }
    layers.reverse();
    Ok(Chain::new(layers))
}

/// Removes chains that no result has and nothing builds on any more, in batches of what was left loose. A part of the housekeeping:
/// until then they are only in nobody's way.
pub(super) async fn delete_loose(tx: &mut SqliteConnection) -> Result<(), StoreError> {
    loop {
        let loose: Vec<Vec<u8>> =
            sqlx::query_scalar("DELETE FROM loose_chains WHERE id IN (SELECT id FROM loose_chains LIMIT ?1) RETURNING id")
                .bind(BATCH)
                .fetch_all(&mut *tx)
                .await
                .during("looking for chains that nothing has any more")?;
        if loose.is_empty() {
            return Ok(());
        }
        let mut ids = Vec::with_capacity(loose.len());
        for id in &loose {
            ids.push(*digest("loose_chains.id", id)?.as_bytes());
        }
        // What they built on may be loose now, and is looked at in the next round.
        let below: Vec<Option<Vec<u8>>> = sqlx::query_scalar(
            "DELETE FROM chains WHERE id IN (SELECT unhex(value) FROM json_each(?1)) \
             AND NOT EXISTS (SELECT 1 FROM result_chains WHERE result_chains.chain = chains.id) \
             AND NOT EXISTS (SELECT 1 FROM chains AS upper WHERE upper.below = chains.id) RETURNING below",
        )
        .bind(hex_list(&ids))
        .fetch_all(&mut *tx)
        .await
        .during("removing chains that nothing has any more")?;
        for below in below.into_iter().flatten() {
            sqlx::query("INSERT OR IGNORE INTO loose_chains (id) VALUES (?1)")
                .bind(below)
                .execute(&mut *tx)
                .await
                .during("noting chains that nothing may have any more")?;
        }
    }
}

/// Turns what an earlier program recorded, results with all layers of their chains, into chains. What was done is not done again
/// where this is interrupted.
pub(super) async fn convert_results(db: &Db) -> Result<(), StoreError> {
    loop {
        let mut tx = db.write().await?;
        let rows: Vec<(i64, String)> = sqlx::query_as(
            "SELECT results.id, results.outputs FROM results_to_convert \
             JOIN results ON results.id = results_to_convert.result LIMIT ?1",
        )
        .bind(BATCH)
        .fetch_all(&mut *tx)
        .await
        .during("looking for results of an earlier version")?;
        if rows.is_empty() {
            return Ok(());
        }
        for (id, text) in rows {
            let outputs: Vec<Option<Chain>> = from_json("results.outputs", &text)?;
            let text = insert_chains(&mut tx, &outputs).await?;
            insert_result_chains(&mut tx, id, &text).await?;
            convert_result(&mut tx, id, &text).await?;
        }
        commit(tx).await?;
    }
}

async fn convert_result(
    tx: &mut SqliteConnection,
    id: i64,
    outputs: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE results SET outputs = ?2 WHERE id = ?1")
        .bind(id)
        .bind(outputs)
        .execute(&mut *tx)
        .await
        .during("converting a result of an earlier version")?;
    sqlx::query("DELETE FROM results_to_convert WHERE result = ?1")
        .bind(id)
        .execute(tx)
        .await
        .during("converting a result of an earlier version")?;
    Ok(())
}
