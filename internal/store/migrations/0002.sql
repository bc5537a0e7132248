-- TXT values that our own name servers answer with (dns-01, provider builtin).
CREATE TABLE records (
    name  TEXT   NOT NULL, -- full, in lower case, without the last dot
    value TEXT   NOT NULL,
    at    BIGINT NOT NULL,
    PRIMARY KEY (name, value)
);
