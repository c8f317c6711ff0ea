//! The scenario of `infra/runbooks/someone-edited-a-counter.md`, by the very commands that it has.

use std::path::Path;

use aws_sdk_dynamodb::types::AttributeValue;
use recount_schemas::Settings;
use recount_schemas::items::{PK, SK, cell_sk};

use crate::support::capture::{Capture, NOVEMBER};
use crate::support::naive;
use crate::support::process::json;

#[tokio::test(flavor = "multi_thread")]
async fn invariants_8_and_9_someone_edited_a_counter() {
    let mut capture = Capture::start().await;
    capture.insert("scan", 0..30).await;
    capture.captured().await;
    capture.agrees();
    let month = naive::month(NOVEMBER).parse().unwrap();
    let right = capture.expected()[&("p1".to_owned(), naive::month(NOVEMBER))].0;
    let edit = capture.dynamo.update_item().table_name(Settings::default().totals);
    let edit = edit.key(PK, AttributeValue::S("p1".into())).key(SK, AttributeValue::S(cell_sk(month, 0)));
    let edit =
        edit.update_expression("ADD events :n").expression_attribute_values(":n", AttributeValue::N("100".into()));
    edit.send().await.unwrap();

    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/runbooks/someone-edited-a-counter.md");
    let text = std::fs::read_to_string(page).unwrap();
    let (mut ends, mut report) = (Vec::new(), String::new());
    for line in text.lines().filter_map(|line| line.trim_start().strip_prefix("recount ")) {
        let line = line.replace("acme", "p1").replace("HASH", &report);
        let words: Vec<&str> = line.split(' ').collect();
        let output = capture.run(&[words.as_slice(), &["--format", "json"]].concat());
        let said = json(&output);
        ends.push((words[0].to_owned(), output.status.code().unwrap()));
        match ends.len() {
            2 => {
                assert_eq!(said["findings"][0]["kind"], "damaged", "{said}");
                assert_eq!(said["findings"][0]["actual"].as_i64(), Some(right + 100));
            }
            3 => assert_eq!(said["plans"][0]["cells"][0]["add"]["events"], -100),
            4 => {
                let number = |when: &str| said["applied"][0][when]["events"].as_i64().unwrap();
                assert_eq!((number("before"), number("after")), (right + 100, right));
                report = said["reports"][0].as_str().unwrap().to_owned();
            }
            5 => assert_eq!((&said["reconciled"]["verdict"], &said["accept_loss"]), (&"clean".into(), &false.into())),
            _ => {}
        }
    }
    let expected = [("usage", 0), ("reconcile", 1), ("repair", 1), ("repair", 0), ("repair", 0)];
    assert_eq!(ends, expected.map(|(command, code)| (command.to_owned(), code)));
    capture.agrees();
}
