-- fhirehose: was warehouse/0003_facts
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
