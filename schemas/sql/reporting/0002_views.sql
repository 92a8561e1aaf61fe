-- fhirehose: was warehouse/0004_reporting
CREATE SCHEMA reporting;

-- Views for reports. Ages are computed when asked. Counts are by patient_id: a patient has several keys.
CREATE VIEW reporting.v_patient_demographics AS
WITH patient AS (
    SELECT *, extract(year FROM age(coalesce(deceased_date, current_date), date_of_birth))::integer AS age
    FROM dim.patient_dimension
    WHERE is_current AND NOT is_deleted AND NOT is_inferred AND patient_key <> 0
)
SELECT
    p.tenant_id, p.patient_key, p.patient_id, p.mrn, p.age,
    CASE WHEN p.age < 1 THEN '0' WHEN p.age < 5 THEN '1-4' WHEN p.age < 18 THEN '5-17' WHEN p.age < 40 THEN '18-39'
         WHEN p.age < 65 THEN '40-64' WHEN p.age >= 65 THEN '65+' END AS age_group,
    p.gender, p.race, p.ethnicity, p.city, p.state, p.is_deceased,
    coalesce(e.total_encounters, 0) AS total_encounters, e.last_encounter_date
FROM patient AS p
LEFT JOIN LATERAL (
    SELECT count(*) AS total_encounters, (max(f.admission_ts) AT TIME ZONE 'UTC')::date AS last_encounter_date
    FROM fact.encounter_fact AS f
    WHERE f.tenant_id = p.tenant_id AND f.patient_id = p.patient_id
        AND f.status NOT IN ('cancelled', 'entered-in-error')
) AS e ON true;

CREATE VIEW reporting.v_encounter_summary AS
SELECT
    e.tenant_id, d.year, d.month, e.facility_key, f.facility_name, e.encounter_type,
    count(*) AS encounter_count,
    round(avg(e.length_of_stay_days), 2) AS avg_los_days,
    count(*) FILTER (WHERE e.readmission_30_days) AS readmissions_30_day,
    round(count(*) FILTER (WHERE e.readmission_30_days)::numeric
          / nullif(count(*) FILTER (WHERE e.encounter_class = 'IMP' AND e.discharge_ts IS NOT NULL), 0), 4) AS readmission_rate
FROM fact.encounter_fact AS e
JOIN dim.date_dimension AS d ON d.date_key = e.admission_date_key
LEFT JOIN dim.facility_dimension AS f ON f.facility_key = e.facility_key
WHERE e.status NOT IN ('cancelled', 'entered-in-error')
GROUP BY e.tenant_id, d.year, d.month, e.facility_key, f.facility_name, e.encounter_type;
COMMENT ON COLUMN reporting.v_encounter_summary.readmission_rate IS 'Readmissions per discharged inpatient stay; null without any';
