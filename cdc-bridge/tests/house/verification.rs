//! Asks a bridge to verify, and says what it found.

use super::House;
use migrations::control::VERSION;
use migrations::verify::{Course, Difference, How, Verification};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

pub fn url(house: &House, path: &str) -> String {
    format!("http://{}{path}", house.plan.bridge.listen)
}

pub async fn post(house: &House, path: &str, body: serde_json::Value) -> Verification {
    let client = reqwest::Client::new();
    let answer = client.post(url(house, path)).bearer_auth("t").json(&body).send().await.unwrap();
    let text = answer.text().await.unwrap();
    serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text}"))
}

pub async fn look(house: &House) -> Verification {
    let client = reqwest::Client::new();
    let url = url(house, "/v1/verify?slice=orders");
    client.get(url).bearer_auth("t").send().await.unwrap().json().await.unwrap()
}

pub async fn begin(house: &House, options: serde_json::Value) -> Verification {
    let mut body = json!({ "version": VERSION, "slice": "orders" });
    body.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    post(house, "/v1/verify", body).await
}

pub async fn ended(house: &House) -> Verification {
    let began = Instant::now();
    loop {
        let report = look(house).await;
        if !report.course.is_under_way() {
            return report;
        }
        assert!(began.elapsed() < super::WAIT, "not ended: {report:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Compares everything from the first row on.
pub async fn verified(house: &House) -> Verification {
    begin(house, json!({ "restart": true, "full_speed": true })).await;
    let report = ended(house).await;
    assert_eq!(report.course, Course::Done, "{report:?}");
    report
}

/// What differs, in words.
pub fn told(report: &Verification) -> BTreeSet<String> {
    let told = |difference: &Difference| {
        let Difference { row, how } = difference;
        let key: Vec<String> = row.key.iter().map(|(column, value)| format!("{column}={value}")).collect();
        let how = match how {
            How::Missing => "missing".to_owned(),
            How::Extra => "extra".to_owned(),
            How::Values { columns } => columns.join("+"),
            How::Unfit { .. } => "unfit".to_owned(),
        };
        format!("{} {}: {how}", row.table.name, key.join(","))
    };
    assert_eq!(report.differences.total as usize, report.differences.listed.len());
    report.differences.listed.iter().map(told).collect()
}

pub fn clean(report: &Verification) {
    assert_eq!(told(report), BTreeSet::new());
    assert_eq!(report.undecided.total, 0, "{report:?}");
}
