-- Facts. Every fact keeps (tenant_id, patient_id), so that a late version of a patient can re-point it; every key to a
-- dimension names the version valid at the fact's event time. date_key and time_key are of UTC. Keys to facts
-- (encounter_key) are computed from the reference and may name a row that has not arrived.
CREATE TABLE fact.encounter_fact (
    encounter_key         bigint      PRIMARY KEY,
    tenant_id             text        NOT NULL,
    encounter_id          uuid        NOT NULL,
    patient_key           bigint      NOT NULL,
    patient_id            uuid,
    provider_key          bigint      NOT NULL,
    provider_id           uuid,
    facility_key          bigint      NOT NULL,
    facility_id           uuid,
    admission_ts          timestamptz,
    discharge_ts          timestamptz,
    admission_date_key    integer     GENERATED ALWAYS AS (dim.date_key(admission_ts)) STORED,
    admission_time_key    integer     GENERATED ALWAYS AS (dim.time_key(admission_ts)) STORED,
    discharge_date_key    integer     GENERATED ALWAYS AS (dim.date_key(discharge_ts)) STORED,
    discharge_time_key    integer     GENERATED ALWAYS AS (dim.time_key(discharge_ts)) STORED,
    encounter_type        text,
    encounter_class       text,
    status                text,
    priority              text,
    admission_source      text,
    discharge_disposition text,
    length_of_stay_hours  numeric     GENERATED ALWAYS AS (round(extract(epoch FROM discharge_ts - admission_ts) / 3600, 2)) STORED,
    length_of_stay_days   numeric     GENERATED ALWAYS AS (round(extract(epoch FROM discharge_ts - admission_ts) / 86400, 2)) STORED,
    readmission_30_days   boolean     NOT NULL DEFAULT false,
    mortality             boolean,
    source_event_id       text        NOT NULL,
    source_ts             timestamptz NOT NULL,
    version               bigint      NOT NULL,
    loaded_at             timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, encounter_id)
);
CREATE INDEX encounter_fact_patient ON fact.encounter_fact (tenant_id, patient_id, admission_ts);
CREATE INDEX encounter_fact_provider ON fact.encounter_fact (tenant_id, provider_id, admission_ts);
CREATE INDEX encounter_fact_facility ON fact.encounter_fact (facility_key, admission_ts);
COMMENT ON COLUMN fact.encounter_fact.encounter_class IS 'v3 ActCode: AMB, EMER, IMP, OBSENC, VR, HH';
COMMENT ON COLUMN fact.encounter_fact.readmission_30_days IS
    'The stay was followed by another admission as inpatient within 30 days of a discharge alive';

CREATE TABLE fact.diagnosis_fact (
    diagnosis_fact_key  bigint      PRIMARY KEY,
    tenant_id           text        NOT NULL,
    diagnosis_id        uuid        NOT NULL,
    patient_key         bigint      NOT NULL,
    patient_id          uuid,
    encounter_key       bigint      NOT NULL,
    encounter_id        uuid,
    diagnosis_key       bigint      NOT NULL,
    diagnosis_system    text,
    diagnosis_code      text,
    provider_key        bigint      NOT NULL,
    provider_id         uuid,
    diagnosed_at        timestamptz,
    diagnosis_date_key  integer     GENERATED ALWAYS AS (dim.date_key(diagnosed_at)) STORED,
    diagnosis_type      text,
    onset_date          date,
    abatement_date      date,
    clinical_status     text,
    verification_status text,
    severity            text,
    source_event_id     text        NOT NULL,
    source_ts           timestamptz NOT NULL,
    version             bigint      NOT NULL,
    loaded_at           timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, diagnosis_id)
);
CREATE INDEX diagnosis_fact_patient ON fact.diagnosis_fact (tenant_id, patient_id, diagnosed_at);
CREATE INDEX diagnosis_fact_provider ON fact.diagnosis_fact (tenant_id, provider_id, diagnosed_at);
CREATE INDEX diagnosis_fact_diagnosis ON fact.diagnosis_fact (diagnosis_key);
CREATE INDEX diagnosis_fact_encounter ON fact.diagnosis_fact (encounter_key);

CREATE TABLE fact.vital_signs_fact (
    vital_signs_key  bigint      PRIMARY KEY,
    tenant_id        text        NOT NULL,
    sample_id        text        NOT NULL,
    patient_key      bigint      NOT NULL,
    patient_id       uuid        NOT NULL,
    encounter_key    bigint      NOT NULL,
    encounter_id     uuid,
    facility_key     bigint      NOT NULL,
    facility_id      uuid,
    device_id        text        NOT NULL,
    observed_at      timestamptz NOT NULL,
    date_key         integer     GENERATED ALWAYS AS (dim.date_key(observed_at)) STORED,
    time_key         integer     GENERATED ALWAYS AS (dim.time_key(observed_at)) STORED,
    temperature      numeric,
    heart_rate       numeric,
    respiratory_rate numeric,
    systolic         numeric,
    diastolic        numeric,
    mean_pressure    numeric,
    spo2             numeric,
    pain_score       integer,
    gcs              integer,
    weight           numeric,
    height           numeric,
    bmi              numeric,
    glucose          numeric,
    is_manual        boolean,
    source_event_id  text        NOT NULL,
    source_ts        timestamptz NOT NULL,
    version          bigint      NOT NULL,
    loaded_at        timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, sample_id)
);
CREATE INDEX vital_signs_fact_patient ON fact.vital_signs_fact (tenant_id, patient_id, observed_at);
COMMENT ON COLUMN fact.vital_signs_fact.sample_id IS 'Record key without the tenant: <device_id>/<observed_at epoch ms>';
COMMENT ON TABLE fact.vital_signs_fact IS 'One row per reading: Cel, /min, mm[Hg], %, kg, cm, mg/dL (glucose)';

-- Recomputes readmission_30_days for all stays of these patients (pairs of tenant and patient): a stay in hospital that
-- ended with the patient alive and was followed by another one that began 0 to 30 days after.
CREATE FUNCTION fact.refresh_readmissions(tenants text[], patients uuid[]) RETURNS void LANGUAGE sql AS $$
    WITH stay AS (
        SELECT e.encounter_key, e.readmission_30_days,
            e.encounter_class = 'IMP' AND e.mortality IS NOT TRUE AND e.status NOT IN ('cancelled', 'entered-in-error')
            AND EXISTS (
                SELECT FROM fact.encounter_fact AS next
                WHERE next.tenant_id = e.tenant_id AND next.patient_id = e.patient_id
                    AND next.encounter_key <> e.encounter_key AND next.encounter_class = 'IMP'
                    AND next.status NOT IN ('cancelled', 'entered-in-error')
                    AND next.admission_ts >= e.discharge_ts
                    AND next.admission_ts <= e.discharge_ts + interval '30 days'
            ) AS readmitted
        FROM unnest(tenants, patients) AS member (tenant_id, patient_id)
        JOIN fact.encounter_fact AS e USING (tenant_id, patient_id)
    )
    UPDATE fact.encounter_fact AS e SET readmission_30_days = coalesce(stay.readmitted, false)
    FROM stay
    WHERE e.encounter_key = stay.encounter_key AND e.readmission_30_days <> coalesce(stay.readmitted, false);
$$;
