//! Every kind of tape, in every way of running and at every kind of site: always the same table and the same commands.

use std::time::Duration;

use common::settings::Settings;
use cta_sim::{Keyset, Scheduler, Transport, World};
use journeys::fleet::Fleet;
use journeys::kinds;
use journeys::services::Services;
use journeys::site::Site;

/// Ordinary tapes beside those of every kind: forty in all.
const PLAIN: usize = 24;

async fn site(world: World) -> Site {
    let mut site = Site::new(kinds::world(world, PLAIN)).await;
    site.settings = Settings { stall: Duration::from_secs(2), ..site.settings };
    site.settings.producer.interval = Duration::from_millis(100);
    site
}

async fn inline(world: World) {
    let fates = kinds::fates(PLAIN, world.keyset);
    let site = site(world).await;
    kinds::enter(&site, &fates).await;
    let rows = site.tick_until("all at rest", kinds::all_rest).await;
    kinds::hold_against(&site, &rows, &fates);
}

async fn with_workers(workers: usize, concurrency: usize) {
    let vhost = Services::get().fresh_vhost();
    let fates = kinds::fates(PLAIN, Keyset::Head);
    let mut site = site(World::new()).await;
    site.settings.broker = Some(vhost.broker());
    kinds::enter(&site, &fates).await;
    let mut fleet = Fleet::of(&site, workers, concurrency);
    let rows = fleet.until(&site, "all at rest", kinds::all_rest).await;
    fleet.stop().await;
    kinds::hold_against(&site, &rows, &fates);
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_tapes_of_every_kind_go_as_far_as_they_may_without_a_broker() {
    assert_eq!(kinds::fates(PLAIN, Keyset::Head).len(), 40);
    inline(World::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_tapes_of_every_kind_go_as_far_as_they_may_with_one_worker() {
    with_workers(1, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_tapes_of_every_kind_go_as_far_as_they_may_with_four_workers_of_four_hands_each() {
    with_workers(4, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_tapes_of_every_kind_go_as_far_as_they_may_on_a_front_end_of_before_5_10_9() {
    inline(World::new().with_keyset(Keyset::V5_10_7)).await;
}

/// One test for each kind of site.
macro_rules! sites {
    ($($name:ident: $transport:ident, $scheduler:ident, $split:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let world = World::new().with_transport(Transport::$transport).with_scheduler(Scheduler::$scheduler);
            inline(if $split { world.split() } else { world }).await;
        }
    )*};
}

sites! {
    forty_tapes_of_every_kind_go_as_far_as_they_may_over_xrootd_with_the_object_store: Xrootd, Objectstore, false;
    forty_tapes_of_every_kind_go_as_far_as_they_may_over_xrootd_with_the_object_store_and_split_front_ends: Xrootd, Objectstore, true;
    forty_tapes_of_every_kind_go_as_far_as_they_may_over_xrootd_with_the_postgres_scheduler: Xrootd, Postgres, false;
    forty_tapes_of_every_kind_go_as_far_as_they_may_over_xrootd_with_the_postgres_scheduler_and_split_front_ends: Xrootd, Postgres, true;
    forty_tapes_of_every_kind_go_as_far_as_they_may_over_grpc_with_the_object_store: Grpc, Objectstore, false;
    forty_tapes_of_every_kind_go_as_far_as_they_may_over_grpc_with_the_object_store_and_split_front_ends: Grpc, Objectstore, true;
    forty_tapes_of_every_kind_go_as_far_as_they_may_over_grpc_with_the_postgres_scheduler: Grpc, Postgres, false;
    forty_tapes_of_every_kind_go_as_far_as_they_may_over_grpc_with_the_postgres_scheduler_and_split_front_ends: Grpc, Postgres, true;
}
