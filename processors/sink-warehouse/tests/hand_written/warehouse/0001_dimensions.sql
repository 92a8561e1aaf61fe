-- Dimensions. Surrogate keys are the first 63 bits of a UUIDv5 over table, tenant and business key (and start, for
-- later versions): every instance and every replay computes the same. Key 0 is "not applicable". A row a fact refers
-- to before its own record arrived is inferred (is_inferred) and completed by that record, keeping its key.
CREATE EXTENSION IF NOT EXISTS btree_gist SCHEMA public;
CREATE SCHEMA dim;
CREATE SCHEMA fact;
CREATE SCHEMA reporting;

-- SCD2. Intervals are half-open, [valid_from, valid_to), disjoint and free of gaps while the patient is not deleted.
-- The first version holds from 1900-01-01, so facts older than the first change we saw bind to it; source_ts tells
-- when the source committed the version.
CREATE TABLE dim.patient_dimension (
    patient_key      bigint      PRIMARY KEY,
    tenant_id        text        NOT NULL,
    patient_id       uuid        NOT NULL,
    mrn              text,
    first_name       text,
    last_name        text,
    date_of_birth    date,
    gender           text,
    race             text,
    ethnicity        text,
    primary_language text,
    marital_status   text,
    city             text,
    state            text,
    postal_code      text,
    country          text,
    is_deceased      boolean,
    deceased_date    date,
    is_active        boolean,
    attr_hash        bigint,
    valid_from       timestamptz NOT NULL,
    valid_to         timestamptz,
    is_current       boolean     NOT NULL,
    is_deleted       boolean     NOT NULL DEFAULT false,
    is_inferred      boolean     NOT NULL DEFAULT false,
    source_ts        timestamptz NOT NULL,
    version          bigint      NOT NULL,
    loaded_at        timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, patient_id, valid_from),
    CHECK (valid_from < valid_to),
    EXCLUDE USING gist (tenant_id WITH =, patient_id WITH =, tstzrange(valid_from, valid_to) WITH &&)
);
CREATE UNIQUE INDEX patient_dimension_current ON dim.patient_dimension (tenant_id, patient_id) WHERE is_current;
COMMENT ON COLUMN dim.patient_dimension.valid_to IS 'Null while the version holds';
COMMENT ON COLUMN dim.patient_dimension.is_current IS 'The newest version, exactly one per patient, deleted or not';
COMMENT ON COLUMN dim.patient_dimension.attr_hash IS 'Hash of the tracked columns; a change that leaves it alike makes no version';

-- Every change as it came, by source time: the dimension is computed from it, whatever the order of arrival.
CREATE TABLE dim.patient_change (
    tenant_id        text        NOT NULL,
    patient_id       uuid        NOT NULL,
    source_ts        timestamptz NOT NULL,
    version          bigint      NOT NULL,
    member_key       bigint      NOT NULL,
    version_key      bigint      NOT NULL,
    is_deleted       boolean     NOT NULL,
    attr_hash        bigint      NOT NULL,
    mrn              text,
    first_name       text,
    last_name        text,
    date_of_birth    date,
    gender           text,
    race             text,
    ethnicity        text,
    primary_language text,
    marital_status   text,
    city             text,
    state            text,
    postal_code      text,
    country          text,
    is_deceased      boolean,
    deceased_date    date,
    is_active        boolean,
    PRIMARY KEY (tenant_id, patient_id, source_ts)
);

CREATE TABLE dim.provider_dimension (
    provider_key   bigint      PRIMARY KEY,
    tenant_id      text        NOT NULL,
    provider_id    uuid        NOT NULL,
    npi            text,
    first_name     text,
    last_name      text,
    gender         text,
    specialty      text,
    license_number text,
    is_active      boolean,
    attr_hash      bigint,
    valid_from     timestamptz NOT NULL,
    valid_to       timestamptz,
    is_current     boolean     NOT NULL,
    is_deleted     boolean     NOT NULL DEFAULT false,
    is_inferred    boolean     NOT NULL DEFAULT false,
    source_ts      timestamptz NOT NULL,
    version        bigint      NOT NULL,
    loaded_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, provider_id, valid_from),
    CHECK (valid_from < valid_to),
    EXCLUDE USING gist (tenant_id WITH =, provider_id WITH =, tstzrange(valid_from, valid_to) WITH &&)
);
CREATE UNIQUE INDEX provider_dimension_current ON dim.provider_dimension (tenant_id, provider_id) WHERE is_current;

CREATE TABLE dim.provider_change (
    tenant_id      text        NOT NULL,
    provider_id    uuid        NOT NULL,
    source_ts      timestamptz NOT NULL,
    version        bigint      NOT NULL,
    member_key     bigint      NOT NULL,
    version_key    bigint      NOT NULL,
    is_deleted     boolean     NOT NULL,
    attr_hash      bigint      NOT NULL,
    npi            text,
    first_name     text,
    last_name      text,
    gender         text,
    specialty      text,
    license_number text,
    is_active      boolean,
    PRIMARY KEY (tenant_id, provider_id, source_ts)
);

-- SCD1: one row per facility, overwritten.
CREATE TABLE dim.facility_dimension (
    facility_key  bigint      PRIMARY KEY,
    tenant_id     text        NOT NULL,
    facility_id   uuid        NOT NULL,
    facility_code text,
    facility_name text,
    facility_type text,
    city          text,
    state         text,
    postal_code   text,
    country       text,
    timezone      text,
    total_beds    integer,
    icu_beds      integer,
    is_active     boolean,
    is_deleted    boolean     NOT NULL DEFAULT false,
    is_inferred   boolean     NOT NULL DEFAULT false,
    source_ts     timestamptz NOT NULL,
    version       bigint      NOT NULL,
    loaded_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, facility_id)
);

-- Codes as tenants use them, with the newest description.
CREATE TABLE dim.diagnosis_dimension (
    diagnosis_key    bigint      PRIMARY KEY,
    tenant_id        text        NOT NULL,
    diagnosis_system text        NOT NULL,
    diagnosis_code   text        NOT NULL,
    description      text,
    category         text        GENERATED ALWAYS AS (
        CASE WHEN diagnosis_system NOT IN ('http://hl7.org/fhir/sid/icd-10-cm', 'http://hl7.org/fhir/sid/icd-10') THEN NULL
        ELSE CASE
            WHEN diagnosis_code COLLATE "C" < 'C'   THEN 'Infectious and parasitic diseases'
            WHEN diagnosis_code COLLATE "C" < 'D5'  THEN 'Neoplasms'
            WHEN diagnosis_code COLLATE "C" < 'E'   THEN 'Blood and immune mechanism'
            WHEN diagnosis_code COLLATE "C" < 'F'   THEN 'Endocrine, nutritional and metabolic diseases'
            WHEN diagnosis_code COLLATE "C" < 'G'   THEN 'Mental and behavioural disorders'
            WHEN diagnosis_code COLLATE "C" < 'H'   THEN 'Nervous system'
            WHEN diagnosis_code COLLATE "C" < 'H6'  THEN 'Eye and adnexa'
            WHEN diagnosis_code COLLATE "C" < 'I'   THEN 'Ear and mastoid process'
            WHEN diagnosis_code COLLATE "C" < 'J'   THEN 'Circulatory system'
            WHEN diagnosis_code COLLATE "C" < 'K'   THEN 'Respiratory system'
            WHEN diagnosis_code COLLATE "C" < 'L'   THEN 'Digestive system'
            WHEN diagnosis_code COLLATE "C" < 'M'   THEN 'Skin and subcutaneous tissue'
            WHEN diagnosis_code COLLATE "C" < 'N'   THEN 'Musculoskeletal system and connective tissue'
            WHEN diagnosis_code COLLATE "C" < 'O'   THEN 'Genitourinary system'
            WHEN diagnosis_code COLLATE "C" < 'P'   THEN 'Pregnancy, childbirth and the puerperium'
            WHEN diagnosis_code COLLATE "C" < 'Q'   THEN 'Perinatal period'
            WHEN diagnosis_code COLLATE "C" < 'R'   THEN 'Congenital malformations'
            WHEN diagnosis_code COLLATE "C" < 'S'   THEN 'Symptoms, signs and abnormal findings'
            WHEN diagnosis_code COLLATE "C" < 'U'   THEN 'Injury, poisoning and external causes'
            WHEN diagnosis_code COLLATE "C" < 'V'   THEN 'Special purposes'
            WHEN diagnosis_code COLLATE "C" < 'Z'   THEN 'External causes of morbidity'
            ELSE 'Factors influencing health status'
        END END) STORED,
    is_inferred      boolean     NOT NULL DEFAULT false,
    source_ts        timestamptz NOT NULL,
    version          bigint      NOT NULL,
    loaded_at        timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, diagnosis_system, diagnosis_code)
);
COMMENT ON COLUMN dim.diagnosis_dimension.category IS 'Chapter of ICD-10; null for other systems';

INSERT INTO dim.patient_dimension (patient_key, tenant_id, patient_id, valid_from, is_current, source_ts, version)
VALUES (0, '', '00000000-0000-0000-0000-000000000000', '1900-01-01', true, '1900-01-01', -1);
INSERT INTO dim.provider_dimension (provider_key, tenant_id, provider_id, valid_from, is_current, source_ts, version)
VALUES (0, '', '00000000-0000-0000-0000-000000000000', '1900-01-01', true, '1900-01-01', -1);
INSERT INTO dim.facility_dimension (facility_key, tenant_id, facility_id, source_ts, version)
VALUES (0, '', '00000000-0000-0000-0000-000000000000', '1900-01-01', -1);
INSERT INTO dim.diagnosis_dimension (diagnosis_key, tenant_id, diagnosis_system, diagnosis_code, source_ts, version)
VALUES (0, '', '', '', '1900-01-01', -1);
