-- Who did what: lines that only grow, each chained to the one before by its hash.
CREATE TABLE audit (
    seq  BIGINT PRIMARY KEY, -- from 1, without gaps
    at   BIGINT NOT NULL,
    line TEXT   NOT NULL,    -- as it was hashed
    hash TEXT   NOT NULL
);
