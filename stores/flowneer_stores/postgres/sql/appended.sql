-- After a lost answer: of which runs, still of this epoch, are all of these versions there? (run_id, epoch, seq, digest).
SELECT new.run_id, min(new.epoch)
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bytea[]) AS new (run_id, epoch, seq, digest)
LEFT JOIN {schema}.flowneer_runs AS runs ON runs.run_id = new.run_id AND runs.epoch = new.epoch
LEFT JOIN {schema}.flowneer_versions AS versions
    ON versions.run = runs.id AND versions.seq = new.seq AND versions.digest = new.digest
GROUP BY new.run_id
HAVING count(versions.run) = count(*)
