-- A result's layers as chains: a chain is its top layer over the chain below it, and is there once, whatever number of
-- results has it or builds on it. So a step at the end of a long chain is recorded with as few bytes as one at its start.

CREATE TABLE chains (
    id BLOB NOT NULL PRIMARY KEY,   -- the hash over the ids of its layers
    below BLOB,                     -- the chain without its top layer; null for a chain of one
    layer BLOB NOT NULL             -- the top layer
) STRICT, WITHOUT ROWID;
CREATE INDEX chains_by_layer ON chains (layer);
CREATE INDEX chains_by_below ON chains (below);

CREATE TABLE result_chains (
    chain BLOB NOT NULL,
    result INTEGER NOT NULL REFERENCES results (id) ON DELETE CASCADE,
    PRIMARY KEY (chain, result)
) STRICT, WITHOUT ROWID;
CREATE INDEX result_chains_by_result ON result_chains (result);

-- Chains that a result which is gone had: they are looked at, and go where nothing has them or builds on them any more.
CREATE TABLE loose_chains (
    id BLOB NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TRIGGER a_result_leaves_its_chain AFTER DELETE ON result_chains BEGIN
    INSERT OR IGNORE INTO loose_chains (id) VALUES (OLD.chain);
END;

-- results.outputs is now a JSON list with, per output, the hex of its chain's id, '' for no layers, or null. What was recorded
-- before has lists of layers there until the program has turned it over, which it does before anything else.
CREATE TABLE results_to_convert (
    result INTEGER NOT NULL PRIMARY KEY REFERENCES results (id) ON DELETE CASCADE
) STRICT;
INSERT INTO results_to_convert (result) SELECT id FROM results;
DROP TABLE result_layers;
