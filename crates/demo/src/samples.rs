//! Three questions a user would ask, with their answers.

use anyhow::Result;
use serde_json::{Value, json};

use crate::checks::ALIAS;
use crate::postgres_rows::{connect, lines};
use crate::stack::Stack;

pub struct Sample {
    pub question: &'static str,
    pub query: String,
    /// Lines of the answer; the error when there was none.
    pub answer: Result<Vec<String>>,
}

const HOURLY: &str = "\
SELECT to_char(bucket, 'YYYY-MM-DD HH24:MI'), tenant_id, sum(samples) AS samples,
       round((sum(heart_rate_avg * samples) / sum(samples))::numeric, 1) AS heart_rate
FROM vital_signs_hourly WHERE heart_rate_avg IS NOT NULL AND bucket > now() - interval '3 hours'
GROUP BY 1, 2 ORDER BY 1 DESC, 2 LIMIT 6";

const ENCOUNTERS: &str = "\
SELECT f.facility_name || ', ' || e.tenant_id, count(*) AS encounters,
       round(avg(e.length_of_stay_hours), 1) AS hours, count(*) FILTER (WHERE e.status = 'in-progress') AS open
FROM fact.encounter_fact AS e JOIN dim.facility_dimension AS f USING (facility_key)
WHERE e.admission_ts > now() - interval '30 days' AND e.status <> 'cancelled'
GROUP BY 1 ORDER BY 2 DESC LIMIT 6";

pub fn take(stack: &Stack) -> Vec<Sample> {
    let sql = |question, query: &str| Sample {
        question,
        query: query.to_owned(),
        answer: connect(&stack.postgres).and_then(|mut client| {
            let found = lines(&mut client, query)?;
            Ok(found.into_iter().map(|line| line.join("  ")).collect())
        }),
    };
    let body = json!({
        "size": 5,
        "query": {"match": {"search_text": {"query": "hypertention", "fuzziness": "AUTO"}}},
    });
    let fuzzy = Sample {
        question: "who has \"hypertention\", misspelt?",
        query: format!("POST {ALIAS}/_search {body}"),
        answer: search(stack, &body),
    };
    vec![
        sql("mean heart rate by hour, last hours", HOURLY),
        fuzzy,
        sql("encounters of the last 30 days by facility", ENCOUNTERS),
    ]
}

fn search(stack: &Stack, body: &Value) -> Result<Vec<String>> {
    let url = format!("{}/{ALIAS}/_search", stack.search.trim_end_matches('/'));
    let found: Value = ureq::post(url).send_json(body)?.body_mut().read_json()?;
    let total = &found["hits"]["total"]["value"];
    let mut lines = vec![format!("{total} found, the first:")];
    for hit in found["hits"]["hits"].as_array().into_iter().flatten() {
        let text = |field: &str| hit["_source"][field].as_str().unwrap_or("-").to_owned();
        lines
            .push(["code", "code_display", "subject_name", "clinical_status", "tenant"].map(text).join("  "));
    }
    Ok(lines)
}
