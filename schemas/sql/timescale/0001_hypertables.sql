-- Readings, device metrics and alerts as hypertables of one-day chunks. Every unique key holds the time column.
-- A row's columns are the fields of its topic's Avro schema by name; `tenant` is `tenant_id` here.
CREATE EXTENSION IF NOT EXISTS timescaledb SCHEMA public;

CREATE TABLE public.vital_signs_timeseries (
    observed_at      timestamptz      NOT NULL,
    tenant_id        text             NOT NULL,
    patient_id       uuid             NOT NULL,
    device_id        text             NOT NULL,
    encounter_id     uuid,
    facility_id      uuid,
    source           text             NOT NULL,
    source_event_id  text             NOT NULL,
    is_manual        boolean,
    temperature      double precision,
    heart_rate       double precision,
    pulse_rate       double precision,
    respiratory_rate double precision,
    systolic         double precision,
    diastolic        double precision,
    mean_pressure    double precision,
    spo2             double precision,
    oxygen_flow_rate double precision,
    perfusion_index  double precision,
    weight           double precision,
    height           double precision,
    bmi              double precision,
    impedance        double precision,
    glucose          double precision,
    uric_acid        double precision,
    cholesterol      double precision,
    pain_score       integer,
    gcs              integer,
    steps            bigint,
    signal_quality   double precision,
    lead_off         boolean,
    artifacts        boolean,
    confidence       double precision,
    flags            text[]           NOT NULL,
    version          bigint           NOT NULL,
    source_ts        timestamptz      NOT NULL,
    loaded_at        timestamptz      NOT NULL DEFAULT now()
);
COMMENT ON TABLE public.vital_signs_timeseries IS
    'One wide row per reading: Cel, /min, mm[Hg], %, kg, cm, mg/dL (glucose), umol/L (uric acid), mmol/L (cholesterol)';
COMMENT ON COLUMN public.vital_signs_timeseries.device_id IS
    'Device, or row:<source row id> for rows typed in without a device';
COMMENT ON COLUMN public.vital_signs_timeseries.flags IS 'Codes of data-quality flags';
COMMENT ON COLUMN public.vital_signs_timeseries.version IS 'Topic epoch and offset: a newer version replaces an older one';
COMMENT ON COLUMN public.vital_signs_timeseries.source_ts IS 'When the source committed the row, or the message reached Kafka';

CREATE TABLE public.device_metrics (
    observed_at  timestamptz NOT NULL,
    tenant_id    text        NOT NULL,
    device_id    text        NOT NULL,
    patient_id   uuid,
    vendor       text        NOT NULL,
    battery      integer,
    signal       integer,
    satellites   integer,
    working_mode integer,
    steps        bigint,
    firmware     text,
    flags        text[]      NOT NULL,
    version      bigint      NOT NULL,
    source_ts    timestamptz NOT NULL,
    loaded_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE public.device_metrics IS 'Battery (%), mobile signal, satellites, working mode as devices tell them';

CREATE TABLE public.device_alerts (
    observed_at timestamptz NOT NULL,
    tenant_id   text,
    device_id   text        NOT NULL,
    kind        text        NOT NULL,
    patient_id  uuid,
    facility_id uuid,
    vendor      text        NOT NULL,
    battery     integer,
    flags       text[]      NOT NULL,
    version     bigint      NOT NULL,
    source_ts   timestamptz NOT NULL,
    loaded_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE public.device_alerts IS 'Calls for help (sos) and falls (fall)';
COMMENT ON COLUMN public.device_alerts.tenant_id IS 'Null while the device is assigned to nobody: an alert never waits';

SELECT create_hypertable('public.vital_signs_timeseries', by_range('observed_at', INTERVAL '1 day'), create_default_indexes => false);
SELECT create_hypertable('public.device_metrics', by_range('observed_at', INTERVAL '1 day'), create_default_indexes => false);
SELECT create_hypertable('public.device_alerts', by_range('observed_at', INTERVAL '1 day'), create_default_indexes => false);

CREATE UNIQUE INDEX vital_signs_timeseries_key ON public.vital_signs_timeseries (tenant_id, device_id, observed_at);
CREATE INDEX vital_signs_timeseries_patient ON public.vital_signs_timeseries (tenant_id, patient_id, observed_at DESC);
CREATE UNIQUE INDEX device_metrics_key ON public.device_metrics (tenant_id, device_id, observed_at);
CREATE UNIQUE INDEX device_alerts_key ON public.device_alerts (device_id, kind, observed_at);
CREATE INDEX device_alerts_tenant ON public.device_alerts (tenant_id, observed_at DESC);
