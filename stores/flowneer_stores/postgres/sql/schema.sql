-- The number of the schema; and the highest epoch of any run that was purged: no lease of it is good for a later run of
-- the same id. One row.
CREATE TABLE IF NOT EXISTS {schema}.flowneer_schema (
    version bigint NOT NULL,
    epoch bigint NOT NULL DEFAULT 0
);
