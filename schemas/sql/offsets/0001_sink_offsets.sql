-- Where each pipeline continues: read on assignment, moved on in the transaction that writes the data.
CREATE SCHEMA IF NOT EXISTS fhirehose;

CREATE TABLE fhirehose.sink_offsets (
    pipeline   text        NOT NULL,
    topic      text        NOT NULL,
    part       integer     NOT NULL,
    epoch      bigint      NOT NULL,
    next_off   bigint,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline, topic, part)
) WITH (fillfactor = 50);

COMMENT ON TABLE fhirehose.sink_offsets IS
    'Next Kafka offset per pipeline (consumer group) and partition, committed together with the data';
COMMENT ON COLUMN fhirehose.sink_offsets.epoch IS
    'Raised by each claim of the partition; a worker of an earlier epoch cannot commit';
COMMENT ON COLUMN fhirehose.sink_offsets.next_off IS
    'Offset of the next record to read; null until the first offset was chosen';
