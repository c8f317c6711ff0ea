//! The harness itself: a few changes in, totals and a clean reconcile out.

use crate::support::world::{World, definition, options};
use crate::support::{naive, records};

#[tokio::test(flavor = "multi_thread")]
async fn a_few_changes_are_counted_and_archived() {
    let world = World::start(&definition(""), options()).await;
    let mut rng = fastrand::Rng::with_seed(1);
    let changes = records::lives(&mut rng, 100, world.host.now_us(), 60);
    world.put_changes(&changes).await;
    world.pipeline.drained().await.unwrap();
    let inserted = changes.iter().filter(|c| c.old.is_none()).filter_map(|c| c.new.as_ref());
    assert_eq!(world.totals().await, naive::inserts(inserted));
    let report = world.reconcile().await;
    assert_eq!(
        (report.findings.len(), report.events),
        (
            0,
            naive::inserts(changes.iter().filter(|c| c.old.is_none()).filter_map(|c| c.new.as_ref()))
                .values()
                .map(|t| t.0 as u64)
                .sum()
        )
    );
}
