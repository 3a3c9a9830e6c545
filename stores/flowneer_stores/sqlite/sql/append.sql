-- Versions onto the heads of owned runs: (run_id, epoch, head, then the columns of a version).
-- A row whose run has another epoch by now, or another head, finds no run, and the constraint NOT NULL stops it all.
INSERT INTO flowneer_versions (run, seq, base, fork_of, step_index, path, timestamp, body, parent_digest, digest)
SELECT runs.id, column4, column5, column6, column7, column8, column9, column10, column11, column12
FROM (VALUES {rows}) AS new
LEFT JOIN flowneer_runs AS runs
    ON runs.run_id = new.column1
    AND runs.epoch = new.column2
    AND COALESCE((SELECT max(seq) FROM flowneer_versions WHERE run = runs.id), -1) = new.column3
WHERE column1 IS NOT NULL
