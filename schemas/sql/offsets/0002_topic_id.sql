-- Offsets are of a topic, not of a name: one that was deleted and made anew has another id.
ALTER TABLE fhirehose.sink_offsets ADD COLUMN topic_id text;

COMMENT ON COLUMN fhirehose.sink_offsets.topic_id IS
    'Id of the topic the offset is of, as kafka-topics.sh shows it; null until the next claim where it is not known';
