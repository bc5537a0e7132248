-- The agents of nodes, each known by the key that it made when it joined.
CREATE TABLE agents (
    farm TEXT NOT NULL,
    node TEXT NOT NULL,
    pin  TEXT NOT NULL, -- SHA-256 of its public key (SPKI DER), hex
    doc  TEXT NOT NULL,
    PRIMARY KEY (farm, node)
);
CREATE UNIQUE INDEX agents_pin ON agents (pin);
-- Tokens by which agents join. Only their digest is kept.
CREATE TABLE join_tokens (
    digest TEXT   PRIMARY KEY, -- SHA-256, hex
    farm   TEXT   NOT NULL,
    until  BIGINT NOT NULL,
    doc    TEXT   NOT NULL
);
-- What is asked of agents now: it concerns those who wait only, and no backup holds it.
CREATE TABLE calls (
    id       TEXT   PRIMARY KEY,
    farm     TEXT   NOT NULL,
    node     TEXT   NOT NULL,
    owner    TEXT   NOT NULL, -- the controller that waits for the answer
    until    BIGINT NOT NULL, -- nobody waits any longer
    answered BIGINT NOT NULL, -- 0: not yet
    sealed   TEXT   NOT NULL, -- the call, or its answer
    at       BIGINT NOT NULL
);
CREATE INDEX calls_open ON calls (answered, farm, node, id);
CREATE INDEX calls_owner ON calls (owner, answered);
