-- The metadata of a farm. Times are Unix milliseconds (columns named *_at or *_ms say which), digests and ids of
-- layers and flat files are their 32 bytes, platforms, workers and builds their text.

CREATE TABLE settings (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- One row: the last generation given to a claim. One number for the whole farm grows for every key too.
CREATE TABLE generations (
    last INTEGER NOT NULL
) STRICT;
INSERT INTO generations (last) VALUES (0);

-- What steps have yielded. only_for is empty for the result that everybody may use, else the build with --no-cache
-- that ran the step anew.
CREATE TABLE results (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL,
    scope TEXT NOT NULL,
    only_for TEXT NOT NULL,
    generation INTEGER NOT NULL,
    outputs TEXT NOT NULL,          -- JSON: per output a list of layers, lowest first, or null
    created_at INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    worker TEXT NOT NULL,
    platform TEXT,
    emulated INTEGER NOT NULL,
    build TEXT NOT NULL,
    name TEXT NOT NULL,
    log BLOB,
    used_at INTEGER NOT NULL,
    UNIQUE (key, scope, only_for)
) STRICT;
CREATE INDEX results_by_use ON results (used_at);
CREATE INDEX results_by_only_for ON results (only_for) WHERE only_for <> '';
CREATE INDEX results_by_log ON results (log) WHERE log IS NOT NULL;

CREATE TABLE result_layers (
    layer BLOB NOT NULL,
    result INTEGER NOT NULL REFERENCES results (id) ON DELETE CASCADE,
    PRIMARY KEY (layer, result)
) STRICT, WITHOUT ROWID;
CREATE INDEX result_layers_by_result ON result_layers (result);

-- Who runs what. A claim past until_at is free for whoever asks; until somebody does, its holder may renew it.
CREATE TABLE claims (
    key BLOB NOT NULL,
    scope TEXT NOT NULL,
    only_for TEXT NOT NULL,
    generation INTEGER NOT NULL UNIQUE,
    worker TEXT NOT NULL,
    job TEXT NOT NULL,
    build TEXT NOT NULL,
    step BLOB NOT NULL,
    until_at INTEGER NOT NULL,
    lapsed INTEGER NOT NULL,        -- 1 once its lapse was reported
    PRIMARY KEY (key, scope, only_for)
) STRICT;
CREATE INDEX claims_by_worker ON claims (worker);
CREATE INDEX claims_by_until ON claims (until_at);

CREATE TABLE layers (
    id BLOB NOT NULL PRIMARY KEY,
    toc BLOB,                       -- the encoded TOC's blob; null while a pulled layer is unread
    toc_size INTEGER NOT NULL,
    made_by TEXT,                   -- the worker; null for a pulled layer
    published INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    pulled_blob BLOB,               -- the compressed blob as its registry has it
    pulled_size INTEGER,
    pulled_media_type TEXT
) STRICT;
CREATE INDEX layers_by_toc ON layers (toc) WHERE toc IS NOT NULL;
CREATE INDEX layers_by_pulled_blob ON layers (pulled_blob) WHERE pulled_blob IS NOT NULL;
CREATE INDEX layers_unpublished ON layers (made_by) WHERE published = 0;

CREATE TABLE layer_flats (
    layer BLOB NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    flat BLOB NOT NULL,
    bytes INTEGER NOT NULL,         -- how many of its bytes the layer names
    PRIMARY KEY (layer, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX layer_flats_by_flat ON layer_flats (flat);

CREATE TABLE layer_sources (
    layer BLOB NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    registry TEXT NOT NULL,
    repository TEXT NOT NULL,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (layer, registry, repository)
) STRICT, WITHOUT ROWID;

-- Encodings that the farm made. A row outlives its blob: digest and size stay true.
CREATE TABLE encodings (
    layer BLOB NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    encoding TEXT NOT NULL,
    level INTEGER NOT NULL,
    version INTEGER NOT NULL,
    digest BLOB NOT NULL,
    size INTEGER NOT NULL,
    diff_id BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (layer, encoding, level, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX encodings_by_diff_id ON encodings (diff_id);
CREATE INDEX encodings_by_digest ON encodings (digest);

CREATE TABLE builds (
    id TEXT NOT NULL PRIMARY KEY,
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    frontend TEXT NOT NULL,
    target TEXT NOT NULL,
    platforms TEXT NOT NULL,        -- JSON list
    exports TEXT NOT NULL,          -- JSON list
    started_at INTEGER NOT NULL,
    outcome TEXT NOT NULL,          -- running, succeeded, failed, cancelled, interrupted
    completed_at INTEGER,
    error TEXT,
    response TEXT NOT NULL,         -- JSON object: what the exporters answered
    steps INTEGER NOT NULL,
    steps_cached INTEGER NOT NULL,
    steps_emulated INTEGER NOT NULL
) STRICT;
CREATE INDEX builds_by_start ON builds (started_at, id);
CREATE INDEX builds_running ON builds (outcome) WHERE outcome = 'running';

CREATE TABLE build_steps (
    build TEXT NOT NULL REFERENCES builds (id) ON DELETE CASCADE,
    step BLOB NOT NULL,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    platform TEXT,
    worker TEXT,
    cached INTEGER NOT NULL,
    emulated INTEGER NOT NULL,
    started_at INTEGER,
    completed_at INTEGER,
    error TEXT,
    log_blob BLOB,
    log_text BLOB,
    PRIMARY KEY (build, step)
) STRICT;
CREATE INDEX build_steps_by_log ON build_steps (log_blob) WHERE log_blob IS NOT NULL;

-- What takes room in the store, and when it was last used. The id is its text: sha256:… of a blob, hex of a flat file.
CREATE TABLE usage (
    kind TEXT NOT NULL,             -- blob, flat, snapshot
    id TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    used_at INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_by_use ON usage (used_at, bytes);

CREATE TABLE workers (
    id TEXT NOT NULL PRIMARY KEY,
    native TEXT NOT NULL,           -- JSON list of platforms
    emulated TEXT NOT NULL,         -- JSON list of platforms
    slots INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT;
