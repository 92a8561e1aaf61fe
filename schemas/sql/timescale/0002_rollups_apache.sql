-- fhirehose: edition apache
-- The Apache edition has no continuous aggregates and no policies: the rollups are views, so late readings are in
-- them at once; retention is this function, which sink-timescale calls every minute.
CREATE VIEW public.vital_signs_hourly AS
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
GROUP BY 1, 2, 3;

CREATE VIEW public.vital_signs_daily AS
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
GROUP BY 1, 2, 3;

CREATE FUNCTION fhirehose.apply_retention(days integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    hypertable text;
BEGIN
    -- One instance at a time; the others have nothing left to do.
    IF NOT pg_try_advisory_xact_lock(hashtext('fhirehose.apply_retention')) THEN
        RETURN;
    END IF;
    FOREACH hypertable IN ARRAY ARRAY['public.vital_signs_timeseries', 'public.device_metrics', 'public.device_alerts'] LOOP
        PERFORM public.drop_chunks(hypertable::regclass, older_than => make_interval(days => days));
    END LOOP;
END
$$;
COMMENT ON FUNCTION fhirehose.apply_retention IS 'Drops chunks that are wholly older than so many days';
