-- What lists of thousands show of a target, a certificate and a version, beside the
-- document, so that they are counted, sorted and paged without reading documents. A row
-- that was written before has empty ones until it is written again.
ALTER TABLE places ADD COLUMN node TEXT NOT NULL DEFAULT '';
ALTER TABLE places ADD COLUMN kind TEXT NOT NULL DEFAULT '';
ALTER TABLE places ADD COLUMN standing TEXT NOT NULL DEFAULT '';
ALTER TABLE places ADD COLUMN served TEXT NOT NULL DEFAULT '';
ALTER TABLE places ADD COLUMN looked BIGINT NOT NULL DEFAULT 0;
CREATE INDEX places_standing ON places (farm, standing, target);
CREATE INDEX places_node ON places (farm, node, standing);

ALTER TABLE certificates ADD COLUMN version TEXT NOT NULL DEFAULT '';
ALTER TABLE certificates ADD COLUMN next BIGINT NOT NULL DEFAULT 0;
ALTER TABLE certificates ADD COLUMN failing BIGINT NOT NULL DEFAULT 0;
CREATE INDEX certificates_failing ON certificates (farm, failing, site);

ALTER TABLE versions ADD COLUMN leaf TEXT NOT NULL DEFAULT '';
ALTER TABLE versions ADD COLUMN not_before BIGINT NOT NULL DEFAULT 0;
ALTER TABLE versions ADD COLUMN not_after BIGINT NOT NULL DEFAULT 0;
