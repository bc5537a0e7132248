-- The controllers that were seen, each row written by its own every few seconds.
CREATE TABLE controllers (
    owner TEXT   PRIMARY KEY, -- as in jobs
    seen  BIGINT NOT NULL,
    doc   TEXT   NOT NULL
);
-- What is known of this database, and not of any farm in it: no backup holds it.
CREATE TABLE facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
