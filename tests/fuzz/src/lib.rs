//! What the fuzz targets share. `tests/long/fuzz` runs them; `seeds/<target>/` holds what they start from, written by
//! `examples/seeds.rs` out of real records, entries and files.
//!
//! A target asserts: no panic, no memory beyond its limit, and the laws that hold for whatever the code accepts.

use recount_schemas::Definition;

#[cfg(feature = "sdk")]
pub mod bucket;
pub mod panics;

/// 2026-11-22T00:00:00Z, µs: when every record of a target arrives.
pub const ARRIVED_US: i64 = 1_795_305_600_000_000;

/// Definitions that between them take every branch of the fold.
pub const DEFINITIONS: [&str; 5] = [
    "[source]\ntable='scans'\nkey=['scan_id']\n[fold]\ngroup_by='project_id'\noccurred_at='scanned_at'\ntime_zone='Asia/Singapore'\nsum=['bytes']",
    "[source]\ntable='scans'\nkey=['scan_id']\n[fold]\ngroup_by='project_id'\noccurred_at={attribute='t',unit='ms'}\ncount='net'\nttl_deletes='subtract'\nsum=['bytes','n']\nlanes=4",
    "[source]\ntable='scans'\nkey=['scan_id']\n[fold]\ngroup_by='project_id'\nidentity='change'\ncount='net'\ntime_zone='America/New_York'",
    "[source]\ntable='scans'\nkey=['scan_id']\n[fold]\ngroup_by='n'\noccurred_at={attribute='t',unit='s'}\nsum=['project_id','n']\nlanes=256",
    "[source]\ntable='scans'\nkey=['scan_id','at']\n[fold]\ngroup_by='project_id'\noccurred_at={attribute='project_id',unit='us'}\ncount='net'",
];

/// [`DEFINITIONS`], parsed.
pub fn definitions() -> Vec<Definition> {
    DEFINITIONS.iter().map(|text| Definition::parse(text, "recount.toml").expect("a definition of this file")).collect()
}
