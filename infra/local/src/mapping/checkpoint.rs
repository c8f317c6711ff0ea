//! How far a mapping came in each shard, durable. AWS keeps this too, out of sight.
//!
//! A position is written after the function succeeded and never before: a kill between the two delivers again.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};

/// The positions of any number of mappings in one file. A clone is the same file.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    db: Arc<Mutex<Connection>>,
}

/// Whose position: the mapping, and the stream it reads. A stream made again under its old name is another stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Reader {
    pub mapping: String,
    pub arn: String,
    pub incarnation: String,
}

/// A position in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Position {
    /// The first record not done.
    pub next: u64,
    /// Whether the shard is closed and all of it is done.
    pub done: bool,
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS position(
  mapping TEXT NOT NULL, arn TEXT NOT NULL, incarnation TEXT NOT NULL, shard TEXT NOT NULL,
  next INTEGER NOT NULL, done INTEGER NOT NULL,
  PRIMARY KEY (mapping, arn, incarnation, shard)
) STRICT, WITHOUT ROWID;
";

impl Checkpoints {
    /// Opens or makes the file at `path`; its directory must exist.
    ///
    /// # Errors
    /// When SQLite cannot open or prepare the file.
    pub fn open(path: &Path) -> Result<Self, rusqlite::Error> {
        Self::new(Connection::open(path)?)
    }

    /// Positions that are forgotten when the last clone is dropped.
    ///
    /// # Errors
    /// When SQLite cannot get the memory.
    pub fn memory() -> Result<Self, rusqlite::Error> {
        Self::new(Connection::open_in_memory()?)
    }

    fn new(db: Connection) -> Result<Self, rusqlite::Error> {
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "NORMAL")?;
        db.busy_timeout(std::time::Duration::from_secs(5))?;
        db.execute_batch(SCHEMA)?;
        Ok(Self { db: Arc::new(Mutex::new(db)) })
    }

    /// Whether this reader has any position yet; those it had in earlier streams of the same name are dropped.
    pub(super) fn knows(&self, reader: &Reader) -> Result<bool, rusqlite::Error> {
        let db = self.lock();
        db.prepare_cached("DELETE FROM position WHERE mapping = ?1 AND arn = ?2 AND incarnation <> ?3")?
            .execute(params![reader.mapping, reader.arn, reader.incarnation])?;
        db.prepare_cached("SELECT EXISTS(SELECT 1 FROM position WHERE mapping = ?1 AND arn = ?2 AND incarnation = ?3)")?
            .query_row(params![reader.mapping, reader.arn, reader.incarnation], |row| row.get(0))
    }

    pub(super) fn get(&self, reader: &Reader, shard: &str) -> Result<Option<Position>, rusqlite::Error> {
        self.lock()
            .prepare_cached(
                "SELECT next, done FROM position WHERE mapping = ?1 AND arn = ?2 AND incarnation = ?3 AND shard = ?4",
            )?
            .query_row(params![reader.mapping, reader.arn, reader.incarnation, shard], |row| {
                Ok(Position { next: row.get(0)?, done: row.get(1)? })
            })
            .optional()
    }

    /// Keeps positions, all or none.
    pub(super) fn put(&self, reader: &Reader, positions: &[(&str, Position)]) -> Result<(), rusqlite::Error> {
        let mut db = self.lock();
        let transaction = db.transaction()?;
        for (shard, position) in positions {
            transaction.prepare_cached("INSERT OR REPLACE INTO position VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(
                params![reader.mapping, reader.arn, reader.incarnation, shard, position.next, position.done],
            )?;
        }
        transaction.commit()
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_a_new_start_and_not_a_new_stream() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("positions.db");
        let reader = Reader { mapping: "m".into(), arn: "arn".into(), incarnation: "1".into() };
        let position = Position { next: u64::from(u32::MAX) * 7, done: true };
        Checkpoints::open(&path).unwrap().put(&reader, &[("shard", position)]).unwrap();
        let again = Checkpoints::open(&path).unwrap();
        assert!(again.knows(&reader).unwrap());
        assert_eq!(again.get(&reader, "shard").unwrap(), Some(position));
        assert_eq!(again.get(&reader, "other").unwrap(), None);
        let remade = Reader { incarnation: "2".into(), ..reader.clone() };
        assert!(!again.knows(&remade).unwrap());
        assert_eq!(again.get(&reader, "shard").unwrap(), None, "what the earlier stream had is dropped");
    }
}
