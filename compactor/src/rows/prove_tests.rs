use super::*;
use crate::rows::testing::{NOVEMBER, definition, row};
use crate::rows::write;

#[test]
fn a_file_read_again_says_what_its_writer_said() {
    let definition = definition();
    for ids in [&["b", "a", "c"][..], &["o"]] {
        let rows: Vec<_> = ids
            .iter()
            .enumerate()
            .map(|(i, id)| row(id, (*id != "o").then_some(["acme", "zeta"][i % 2]), NOVEMBER + i as i64 * 9_000, "1.5"))
            .collect();
        let written = write(&definition, rows[0].month, rows).unwrap().unwrap();
        assert_eq!(prove(&definition, written.month, written.bytes.clone()).unwrap(), written);
    }
}

#[test]
fn rows_out_of_order_are_no_file() {
    let definition = definition();
    let file = |ids: &[&str]| {
        let rows = ids.iter().map(|id| row(id, Some("acme"), NOVEMBER, "1")).collect();
        write(&definition, "2026-11".parse().unwrap(), rows).unwrap().unwrap()
    };
    let (twice, month) = (file(&["x", "x"]), "2026-11".parse().unwrap());
    assert!(matches!(prove(&definition, month, twice.bytes), Err(ReadError::Unsorted { .. })));
}
