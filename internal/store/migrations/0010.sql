-- What people are told: notices that are open, messages on their way, and how receivers
-- hear. No message holds a secret.
CREATE TABLE notices (
    farm TEXT NOT NULL,
    id   TEXT NOT NULL,
    doc  TEXT NOT NULL,
    PRIMARY KEY (farm, id)
);

CREATE TABLE messages (
    farm     TEXT   NOT NULL,
    receiver TEXT   NOT NULL,
    id       TEXT   NOT NULL,
    notice   TEXT   NOT NULL,
    made     BIGINT NOT NULL,
    tries    BIGINT NOT NULL, -- counted before each: one that was tried may have arrived
    doc      TEXT   NOT NULL,
    PRIMARY KEY (farm, receiver, id)
);
CREATE INDEX messages_made ON messages (farm, receiver, made);

CREATE TABLE hearing (
    farm     TEXT NOT NULL,
    receiver TEXT NOT NULL,
    doc      TEXT NOT NULL,
    PRIMARY KEY (farm, receiver)
);
