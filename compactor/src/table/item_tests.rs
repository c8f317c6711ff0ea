use super::*;
use proptest::prelude::*;

fn item(text: &str) -> Item {
    parse(text, Binary::Once).unwrap()
}

#[test]
fn spelling_and_order_are_no_content() {
    for (one, other) in [
        (r#"{"a":{"N":"1.50"},"b":{"S":"x"}}"#, r#"{"b":{"S":"x"},"a":{"N":"15E-1"}}"#),
        (r#"{"a":{"N":"1200"}}"#, r#"{"a":{"N":"1.2E+3"}}"#),
        (r#"{"a":{"N":"-0.0"}}"#, r#"{"a":{"N":"0"}}"#),
        (r#"{"a":{"NS":["2","1.0"]}}"#, r#"{"a":{"NS":["1","2.0"]}}"#),
        (r#"{"a":{"L":[{"M":{"s":{"SS":["y","x"]}}}]}}"#, r#"{"a":{"L":[{"M":{"s":{"SS":["x","y"]}}}]}}"#),
    ] {
        assert_eq!(item_hash(&item(one)), item_hash(&item(other)), "{one} {other}");
    }
    for (one, other) in [
        (r#"{"a":{"N":"1"}}"#, r#"{"a":{"S":"1"}}"#),
        (r#"{"a":{"N":"10"}}"#, r#"{"a":{"N":"1"}}"#),
        (r#"{"a":{"L":[{"N":"1"},{"N":"2"}]}}"#, r#"{"a":{"L":[{"N":"2"},{"N":"1"}]}}"#),
        (r#"{"a":{"S":"1.0"}}"#, r#"{"a":{"S":"1"}}"#),
        (r#"{"a":{"N":"1"}}"#, r#"{"a":{"N":"-1"}}"#),
    ] {
        assert_ne!(item_hash(&item(one)), item_hash(&item(other)), "{one} {other}");
    }
}

#[test]
fn a_record_of_kinesis_has_its_binary_twice() {
    // As the field captures have it: cGxhY2Vob2xkZXJfYnl0ZXM= is "placeholder_bytes".
    let twice =
        r#"{"k":{"B":"Y0d4aFkyVm9iMnhrWlhKZllubDBaWE09"},"l":{"L":[{"BS":["Y0d4aFkyVm9iMnhrWlhKZllubDBaWE09"]}]}}"#;
    let once = item(r#"{"k":{"B":"cGxhY2Vob2xkZXJfYnl0ZXM="},"l":{"L":[{"BS":["cGxhY2Vob2xkZXJfYnl0ZXM="]}]}}"#);
    assert_eq!(parse(twice, Binary::Twice).unwrap(), once);
    assert_eq!(Value::Object(encoded_twice(&once)).to_string(), twice);
}

#[test]
fn an_item_of_the_sdk_is_the_item_of_the_record() {
    let sdk = HashMap::from([
        ("id".to_owned(), AttributeValue::S("s1".into())),
        ("n".to_owned(), AttributeValue::N("1.50".into())),
        ("b".to_owned(), AttributeValue::B(Blob::new(b"xyz"))),
        ("t".to_owned(), AttributeValue::Bool(true)),
        ("z".to_owned(), AttributeValue::Null(true)),
        ("s".to_owned(), AttributeValue::Ns(vec!["2".into(), "1".into()])),
        ("l".to_owned(), AttributeValue::L(vec![AttributeValue::M(HashMap::new())])),
    ]);
    let record = item(
        r#"{"b":{"B":"eHl6"},"id":{"S":"s1"},"l":{"L":[{"M":{}}]},"n":{"N":"1.5"},"s":{"NS":["1","2"]},"t":{"BOOL":true},"z":{"NULL":true}}"#,
    );
    let ours = from_sdk(&sdk).unwrap();
    assert_eq!(item_hash(&ours), item_hash(&record));
    let names = ["id".to_owned(), "n".to_owned(), "b".to_owned()];
    assert_eq!(key_text(&names, &ours), key_text(&names, &record));
    let key = key_for_sdk(&key_of(&names, &ours).unwrap()).unwrap();
    assert!(names.iter().all(|name| key[name] == sdk[name]));
    assert_eq!(key_text(&["gone".to_owned()], &ours), None);
}

#[test]
fn what_is_no_item_is_none() {
    for text in ["", "[]", "1", "{", &format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200))] {
        assert_eq!(parse(text, Binary::Twice), None, "{text}");
    }
    assert_eq!(key_for_sdk(&item(r#"{"a":{"BOOL":true}}"#)), None);
}

proptest! {
    #[test]
    fn equal_numbers_have_one_spelling(digits in 0u64..1_000_000, scale in 0usize..6, zeros in 0usize..4, negative in any::<bool>()) {
        let sign = if negative { "-" } else { "" };
        let plain = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = plain.split_at(plain.len() - scale);
        let spelt = format!("{sign}{}{whole}.{fraction}{}", "0".repeat(zeros), "0".repeat(zeros));
        let exponent = format!("{sign}{digits}E-{scale}");
        prop_assert_eq!(number(&spelt), number(&exponent));
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,40}") {
        let _ = number(&text);
        if let Some(item) = parse(&text, Binary::Twice) {
            let _ = item_hash(&item);
            let _ = encoded_twice(&item);
        }
    }
}
