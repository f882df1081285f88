//! The guestbook with real visitors: each of them is answered and logged, and the database has what the log promises.

use std::time::Duration;

use lab::Cluster;
use monolith_demo::shop::{database, server};
use monolith_demo::{guestbook, steady};
use tokio::net::TcpListener;
use tokio::sync::watch;

const PAGES: u32 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn every_visit_is_logged_and_every_write_is_there_once() {
    let cluster = Cluster::start_with("-c fsync=off");
    let pool = database::pool(&cluster.database("guestbook"), "test", 8).unwrap();
    guestbook::migrate(&pool, i64::from(PAGES)).await.unwrap();
    guestbook::migrate(&pool, i64::from(PAGES)).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let (close, closed) = watch::channel(false);
    let serving = tokio::spawn(server::serve(listener, guestbook::router(pool), async move {
        let mut closed = closed;
        let _ = closed.wait_for(|closed| *closed).await;
    }));

    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("visits");
    let settings = steady::Settings { proxy, writes: 100, reads: 100, pages: PAGES, log: log.clone() };
    let (stop, stopped) = watch::channel(false);
    let visitors = tokio::spawn(async move { steady::run(&settings, stopped).await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.send_replace(true);
    visitors.await.unwrap().unwrap();
    close.send_replace(true);
    serving.await.unwrap().unwrap();

    let text = std::fs::read_to_string(log).unwrap();
    let visits: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    assert!(visits.len() >= 300, "only {} visits in two seconds", visits.len());
    assert!(visits.iter().all(|visit| visit.len() == 5 && visit[2].starts_with('2')), "{text}");
    let of = |what: &str| visits.iter().filter(|visit| visit[3] == what).count().to_string();
    let marks = "select count(*), count(distinct mark) from entries";
    assert_eq!(cluster.sql("guestbook", marks), format!("{0}|{0}", of("entry")));
    assert_eq!(cluster.sql("guestbook", "select sum(likes) from pages"), of("like"));
    assert!(visits.iter().filter(|visit| visit[3] == "read").count() >= 150, "{text}");
}
