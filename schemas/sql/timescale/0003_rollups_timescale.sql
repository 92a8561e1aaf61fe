-- fhirehose: edition timescale
-- Rollups as continuous aggregates, real-time for what is not materialized yet; late readings enter at the next
-- refresh, every minute. Chunks are compressed after a week. A database that ran the Apache edition before has
-- views of the same names.
DROP VIEW IF EXISTS public.vital_signs_hourly, public.vital_signs_daily;
DROP FUNCTION IF EXISTS fhirehose.apply_retention(integer);

CREATE MATERIALIZED VIEW public.vital_signs_hourly
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT
    time_bucket(INTERVAL '1 hour', observed_at) AS bucket,
    tenant_id,
    patient_id,
    count(*) AS samples,
    avg(temperature) AS temperature_avg, min(temperature) AS temperature_min, max(temperature) AS temperature_max,
    avg(heart_rate) AS heart_rate_avg, min(heart_rate) AS heart_rate_min, max(heart_rate) AS heart_rate_max,
    avg(pulse_rate) AS pulse_rate_avg, min(pulse_rate) AS pulse_rate_min, max(pulse_rate) AS pulse_rate_max,
    avg(respiratory_rate) AS respiratory_rate_avg, min(respiratory_rate) AS respiratory_rate_min, max(respiratory_rate) AS respiratory_rate_max,
    avg(systolic) AS systolic_avg, min(systolic) AS systolic_min, max(systolic) AS systolic_max,
    avg(diastolic) AS diastolic_avg, min(diastolic) AS diastolic_min, max(diastolic) AS diastolic_max,
    avg(mean_pressure) AS mean_pressure_avg, min(mean_pressure) AS mean_pressure_min, max(mean_pressure) AS mean_pressure_max,
    avg(spo2) AS spo2_avg, min(spo2) AS spo2_min, max(spo2) AS spo2_max,
    avg(glucose) AS glucose_avg, min(glucose) AS glucose_min, max(glucose) AS glucose_max,
    avg(weight) AS weight_avg, max(steps) AS steps_max, max(pain_score) AS pain_score_max, min(gcs) AS gcs_min
FROM public.vital_signs_timeseries
GROUP BY 1, 2, 3
WITH NO DATA;

CREATE MATERIALIZED VIEW public.vital_signs_daily
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT
    time_bucket(INTERVAL '1 day', observed_at) AS bucket,
    tenant_id,
    patient_id,
    count(*) AS samples,
    avg(temperature) AS temperature_avg, min(temperature) AS temperature_min, max(temperature) AS temperature_max,
    avg(heart_rate) AS heart_rate_avg, min(heart_rate) AS heart_rate_min, max(heart_rate) AS heart_rate_max,
    avg(pulse_rate) AS pulse_rate_avg, min(pulse_rate) AS pulse_rate_min, max(pulse_rate) AS pulse_rate_max,
    avg(respiratory_rate) AS respiratory_rate_avg, min(respiratory_rate) AS respiratory_rate_min, max(respiratory_rate) AS respiratory_rate_max,
    avg(systolic) AS systolic_avg, min(systolic) AS systolic_min, max(systolic) AS systolic_max,
    avg(diastolic) AS diastolic_avg, min(diastolic) AS diastolic_min, max(diastolic) AS diastolic_max,
    avg(mean_pressure) AS mean_pressure_avg, min(mean_pressure) AS mean_pressure_min, max(mean_pressure) AS mean_pressure_max,
    avg(spo2) AS spo2_avg, min(spo2) AS spo2_min, max(spo2) AS spo2_max,
    avg(glucose) AS glucose_avg, min(glucose) AS glucose_min, max(glucose) AS glucose_max,
    avg(weight) AS weight_avg, max(steps) AS steps_max, max(pain_score) AS pain_score_max, min(gcs) AS gcs_min
FROM public.vital_signs_timeseries
GROUP BY 1, 2, 3
WITH NO DATA;

ALTER TABLE public.vital_signs_timeseries SET (
    timescaledb.compress, timescaledb.compress_segmentby = 'tenant_id, device_id', timescaledb.compress_orderby = 'observed_at DESC');
ALTER TABLE public.device_metrics SET (
    timescaledb.compress, timescaledb.compress_segmentby = 'tenant_id, device_id', timescaledb.compress_orderby = 'observed_at DESC');
ALTER TABLE public.device_alerts SET (
    timescaledb.compress, timescaledb.compress_segmentby = 'device_id, kind', timescaledb.compress_orderby = 'observed_at DESC');
SELECT add_compression_policy('public.vital_signs_timeseries', INTERVAL '7 days');
SELECT add_compression_policy('public.device_metrics', INTERVAL '7 days');
SELECT add_compression_policy('public.device_alerts', INTERVAL '7 days');

CREATE FUNCTION fhirehose.apply_retention(days integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    hypertable text;
    rollup     text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('fhirehose.apply_retention')) THEN
        RETURN;
    END IF;
    IF EXISTS (
        SELECT FROM timescaledb_information.jobs
        WHERE proc_name = 'policy_retention' AND hypertable_schema = 'public'
            AND hypertable_name = 'vital_signs_timeseries'
            AND (config ->> 'drop_after')::interval = make_interval(days => days)
    ) THEN
        RETURN;
    END IF;
    FOREACH hypertable IN ARRAY ARRAY['public.vital_signs_timeseries', 'public.device_metrics', 'public.device_alerts'] LOOP
        PERFORM public.remove_retention_policy(hypertable::regclass, if_exists => true);
        PERFORM public.add_retention_policy(hypertable::regclass, drop_after => make_interval(days => days),
            schedule_interval => INTERVAL '1 hour');
    END LOOP;
    -- A refresh reaches as far back as readings are taken, and no further: where chunks were dropped it empties the
    -- rollups. So it does where retention is raised, and below three days, the least a refresh can cover.
    FOREACH rollup IN ARRAY ARRAY['public.vital_signs_hourly', 'public.vital_signs_daily'] LOOP
        PERFORM public.remove_continuous_aggregate_policy(rollup::regclass, if_exists => true);
        PERFORM public.add_continuous_aggregate_policy(rollup::regclass,
            start_offset => make_interval(days => greatest(days, 3)),
            end_offset => INTERVAL '1 day', schedule_interval => INTERVAL '1 minute');
    END LOOP;
END
$$;
COMMENT ON FUNCTION fhirehose.apply_retention IS 'Sets the retention and refresh policies to so many days, where they differ';
