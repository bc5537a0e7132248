-- One schema for SQLite and PostgreSQL: TEXT and BIGINT only, ids made by us,
-- times in microseconds since 1970 (0: never), documents as JSON text, bytes as
-- base64. What is asked for has a column; everything else stands in doc.
-- On PostgreSQL every TEXT is compared by its bytes, as SQLite does.
-- An index goes on with the columns that its query is sorted by: without them SQLite
-- takes the key that is in that order, and looks through the whole farm.

CREATE TABLE words (
    farm  TEXT NOT NULL,
    name  TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (farm, name)
);

-- What farm.yaml says: its text as written, and what it means, row by row.
CREATE TABLE revisions (
    farm    TEXT   NOT NULL,
    number  BIGINT NOT NULL,
    content TEXT   NOT NULL,
    author  TEXT   NOT NULL,
    at      BIGINT NOT NULL,
    PRIMARY KEY (farm, number)
);
CREATE TABLE settings (
    farm TEXT PRIMARY KEY,
    doc  TEXT NOT NULL
);
CREATE TABLE issuers (
    farm TEXT NOT NULL,
    name TEXT NOT NULL,
    sum  TEXT NOT NULL, -- digest of doc: tells what changed without reading all
    doc  TEXT NOT NULL,
    PRIMARY KEY (farm, name)
);
CREATE TABLE nodes (
    farm TEXT NOT NULL,
    name TEXT NOT NULL,
    sum  TEXT NOT NULL,
    doc  TEXT NOT NULL,
    PRIMARY KEY (farm, name)
);
CREATE TABLE sites (
    farm TEXT NOT NULL,
    name TEXT NOT NULL,
    sum  TEXT NOT NULL,
    doc  TEXT NOT NULL,
    PRIMARY KEY (farm, name)
);

-- What targets should hold and were seen to hold.
CREATE TABLE places (
    farm     TEXT   NOT NULL,
    target   TEXT   NOT NULL,
    site     TEXT   NOT NULL,
    released BIGINT NOT NULL,
    sum      TEXT   NOT NULL, -- digest of the target's part of doc
    doc      TEXT   NOT NULL,
    PRIMARY KEY (farm, target)
);
CREATE INDEX places_site ON places (farm, site, target);

CREATE TABLE certificates (
    farm TEXT NOT NULL,
    site TEXT NOT NULL,
    doc  TEXT NOT NULL,
    PRIMARY KEY (farm, site)
);
CREATE TABLE versions (
    farm    TEXT   NOT NULL,
    id      TEXT   NOT NULL,
    site    TEXT   NOT NULL,
    created BIGINT NOT NULL,
    doc     TEXT   NOT NULL,
    PRIMARY KEY (farm, id)
);
CREATE INDEX versions_site ON versions (farm, site, created);

CREATE TABLE sealed (
    farm   TEXT   NOT NULL,
    kind   TEXT   NOT NULL,
    name   TEXT   NOT NULL,
    at     BIGINT NOT NULL,
    sealed TEXT   NOT NULL,
    PRIMARY KEY (farm, kind, name)
);

CREATE TABLE accounts (
    farm      TEXT NOT NULL,
    issuer    TEXT NOT NULL,
    directory TEXT NOT NULL,
    doc       TEXT NOT NULL,
    PRIMARY KEY (farm, issuer, directory)
);
CREATE TABLE orders (
    farm    TEXT   NOT NULL,
    id      TEXT   NOT NULL,
    site    TEXT   NOT NULL,
    slot    TEXT   NOT NULL,
    intent  TEXT   NOT NULL,
    state   TEXT   NOT NULL,
    created BIGINT NOT NULL,
    doc     TEXT   NOT NULL,
    PRIMARY KEY (farm, id)
);
CREATE INDEX orders_slot ON orders (farm, slot, created);
CREATE INDEX orders_site ON orders (farm, site, created);
CREATE INDEX orders_intent ON orders (farm, intent, created, id);
CREATE INDEX orders_created ON orders (farm, created);
CREATE TABLE challenges (
    farm     TEXT NOT NULL,
    order_id TEXT NOT NULL,
    token    TEXT NOT NULL,
    doc      TEXT NOT NULL,
    PRIMARY KEY (farm, order_id, token)
);
CREATE INDEX challenges_token ON challenges (token);

CREATE TABLE rollouts (
    farm    TEXT   NOT NULL,
    id      TEXT   NOT NULL,
    site    TEXT   NOT NULL,
    running BIGINT NOT NULL, -- 1 until it has an outcome
    created BIGINT NOT NULL,
    ended   BIGINT NOT NULL,
    doc     TEXT   NOT NULL, -- without the steps
    PRIMARY KEY (farm, id)
);
CREATE INDEX rollouts_running ON rollouts (farm, running, site);
CREATE INDEX rollouts_site ON rollouts (farm, site, created);
CREATE INDEX rollouts_created ON rollouts (farm, created);
CREATE TABLE steps (
    farm     TEXT   NOT NULL,
    rollout  TEXT   NOT NULL,
    target   TEXT   NOT NULL,
    position BIGINT NOT NULL, -- in the order of the waves
    grp      TEXT   NOT NULL, -- the reload group
    doing    TEXT   NOT NULL, -- the act in flight
    attempt  BIGINT NOT NULL,
    sum      TEXT   NOT NULL,
    doc      TEXT   NOT NULL,
    PRIMARY KEY (farm, rollout, target)
);
CREATE INDEX steps_doing ON steps (farm, grp, doing, rollout, position);

CREATE TABLE events (
    farm    TEXT   NOT NULL,
    id      TEXT   NOT NULL,
    at      BIGINT NOT NULL,
    site    TEXT   NOT NULL,
    rollout TEXT   NOT NULL,
    kind    TEXT   NOT NULL,
    level   TEXT   NOT NULL,
    doc     TEXT   NOT NULL,
    PRIMARY KEY (farm, id)
);
CREATE INDEX events_site ON events (farm, site, id);
CREATE INDEX events_rollout ON events (farm, rollout, id);
CREATE INDEX events_at ON events (at);

-- due is when a claim looks at a job: run_at while it waits, the end of its own
-- lease while it runs (so that a job whose owner died is found by the same look),
-- the end of the lane's lease when it was found waiting behind another job of its
-- lane (finishing that one makes it due again).
CREATE TABLE jobs (
    id       TEXT   PRIMARY KEY,
    farm     TEXT   NOT NULL,
    kind     TEXT   NOT NULL,
    subject  TEXT   NOT NULL,
    lane     TEXT   NOT NULL,
    due      BIGINT NOT NULL,
    run_at   BIGINT NOT NULL,
    dirty    BIGINT NOT NULL, -- when to run again, said while it ran; 0: nobody did
    attempt  BIGINT NOT NULL,
    epoch    BIGINT NOT NULL,
    nonce    TEXT   NOT NULL,
    owner    TEXT   NOT NULL, -- empty: it waits
    since    BIGINT NOT NULL, -- when it was claimed
    error    TEXT   NOT NULL
);
CREATE UNIQUE INDEX jobs_twin ON jobs (farm, kind, subject);
CREATE INDEX jobs_due ON jobs (due, id); -- in the order of a claim: no sort, so PostgreSQL reads no more than it returns
CREATE INDEX jobs_lane ON jobs (farm, lane, run_at);
CREATE TABLE lanes (
    farm  TEXT   NOT NULL,
    lane  TEXT   NOT NULL,
    job   TEXT   NOT NULL,
    until BIGINT NOT NULL, -- end of the lease; kept when it is over
    epoch BIGINT NOT NULL, -- only grows
    nonce TEXT   NOT NULL,
    PRIMARY KEY (farm, lane)
);
