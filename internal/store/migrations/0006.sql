-- API tokens. What they are good for, and in which farms, is in doc.
CREATE TABLE api_tokens (
    id      TEXT   PRIMARY KEY,
    name    TEXT   NOT NULL,
    digest  TEXT   NOT NULL, -- SHA-256 of the token, which itself is kept nowhere
    expires BIGINT NOT NULL, -- 0: never
    used    BIGINT NOT NULL, -- to the minute; 0: never yet
    doc     TEXT   NOT NULL
);
CREATE UNIQUE INDEX api_tokens_name ON api_tokens (name);
CREATE UNIQUE INDEX api_tokens_digest ON api_tokens (digest);

-- Browsers that are logged in. No backup holds them.
CREATE TABLE sessions (
    digest  TEXT   PRIMARY KEY, -- SHA-256 of the cookie's value
    seen    BIGINT NOT NULL,    -- to the minute
    expires BIGINT NOT NULL,
    doc     TEXT   NOT NULL
);
CREATE INDEX sessions_expires ON sessions (expires);
