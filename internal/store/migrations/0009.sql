-- Requests that came with an Idempotency-Key, and how they were answered, for a day. No
-- backup holds them.
CREATE TABLE answered (
    caller  TEXT   NOT NULL,
    digest  TEXT   NOT NULL, -- SHA-256 of the key
    request TEXT   NOT NULL, -- of what was asked: HMAC-SHA-256 under the key, which itself is kept nowhere
    at      BIGINT NOT NULL, -- when it was asked
    status  BIGINT NOT NULL, -- of the answer; 0: it is being done
    kind    TEXT   NOT NULL, -- of the answer's content
    answer  TEXT   NOT NULL,
    PRIMARY KEY (caller, digest)
);
CREATE INDEX answered_at ON answered (at);
