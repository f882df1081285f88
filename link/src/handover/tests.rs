//! One process after another at one folder, and which one gets no place.

use super::*;
use std::io::Read;
use std::net::TcpStream;

fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn offer(folder: &Path, listeners: Vec<TcpListener>) -> Offer {
    Offer::at(Tenure::of(folder).unwrap().unwrap(), listeners)
}

async fn inherited(folder: &Path, patience: Duration) -> io::Result<Inherited> {
    let folder = folder.to_path_buf();
    tokio::task::spawn_blocking(move || Inherited::within(patience, &folder)).await.unwrap()
}

async fn predecessor(folder: &Path) -> Predecessor {
    match inherited(folder, TAKEN_MAX).await.unwrap().into_claim() {
        Claim::Held(predecessor) => predecessor,
        Claim::Ours(_) => panic!("nobody has the place"),
    }
}

#[tokio::test]
async fn a_listener_passes_to_the_next_process_with_who_waits_at_it() {
    let folder = tempfile::tempdir().unwrap();
    // Longer than a socket's address may be.
    let folder = folder.path().join("a".repeat(120));
    std::fs::create_dir(&folder).unwrap();
    let (first, other) = (listener(), listener());
    let address = first.local_addr().unwrap();
    let offered = tokio::spawn(offer(&folder, vec![first.try_clone().unwrap(), other]).taken());
    let mut inherited = inherited(&folder, TAKEN_MAX).await.unwrap();
    let mut waiting = TcpStream::connect(address).unwrap();
    let next = inherited.listener(&address.to_string()).unwrap();
    drop(first);

    let Claim::Held(predecessor) = inherited.into_claim() else { panic!("nobody has the place") };
    let (replaced, successor) = tokio::join!(predecessor.replace(), offered);
    let (_, leaving) = replaced.unwrap();
    drop(successor);
    assert!(leaving.unwrap().ended(Duration::from_secs(5)).await);
    let (mut accepted, _) = next.accept().unwrap();
    std::io::Write::write_all(&mut accepted, b"x").unwrap();
    waiting.read_exact(&mut [0]).unwrap();
}

#[tokio::test]
async fn one_of_two_takes_the_place_and_who_leaves_before_takes_none() {
    let folder = tempfile::tempdir().unwrap();
    let offered = tokio::spawn(offer(folder.path(), vec![listener()]).taken());
    drop(predecessor(folder.path()).await);
    let (one, two) = (predecessor(folder.path()).await, predecessor(folder.path()).await);
    let (tenure, leaving) = one.replace().await.unwrap();
    assert!(leaving.is_some());
    let successor = offered.await.unwrap();
    // The one has the place, as its own offer shows.
    let _offer = Offer::at(tenure, Vec::new());
    assert!(two.replace().await.is_err());
    assert_eq!(holder(folder.path()), Some(std::process::id()));
    drop(successor);
}

#[tokio::test]
async fn a_third_process_gets_no_place_while_the_second_waits_for_the_firsts_end() {
    let folder = tempfile::tempdir().unwrap();
    let offered = tokio::spawn(offer(folder.path(), vec![listener()]).taken());
    let (second, third) = (predecessor(folder.path()).await, predecessor(folder.path()).await);
    let (tenure, _leaving) = second.replace().await.unwrap();
    let first = offered.await.unwrap();
    assert_eq!(holder(folder.path()), None, "no door is open");
    assert!(third.replace().await.is_err(), "it had asked before");
    assert!(inherited(folder.path(), LOOK_EVERY).await.is_err(), "it asks now");

    // A successor that dies leaves the place to its predecessor until that one ends.
    drop(tenure);
    assert!(inherited(folder.path(), LOOK_EVERY).await.is_err());
    drop(first);
    let claim = inherited(folder.path(), TAKEN_MAX).await.unwrap().into_claim();
    let Claim::Ours(tenure) = claim else { panic!("{claim:?}") };

    // One that waits meets the door when it opens.
    let offered = tokio::spawn(async move {
        sleep(LOOK_EVERY * 3).await;
        Offer::at(tenure, Vec::new()).taken().await
    });
    let waited = inherited(folder.path(), TAKEN_MAX).await.unwrap();
    assert!(matches!(waited.into_claim(), Claim::Held(_)));
    offered.abort();
}

/// Two that speak at once: both words are read before either answer.
#[tokio::test]
async fn one_of_two_that_ask_at_once_gets_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let ours = offer(folder.path(), vec![listener()]).ours;
    let (mut one, to_one) = UnixStream::pair().unwrap();
    let (mut two, to_two) = UnixStream::pair().unwrap();
    for asker in [&mut one, &mut two] {
        asker.write_all(&[TAKE]).await.unwrap();
    }
    let (first, second) = tokio::join!(negotiated(to_one, &ours), negotiated(to_two, &ours));
    assert_ne!(first.is_ok(), second.is_ok(), "{first:?} {second:?}");
}

#[tokio::test]
async fn who_has_ended_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let offered = tokio::spawn(offer(folder.path(), vec![listener()]).taken());
    let predecessor = predecessor(folder.path()).await;
    offered.abort();
    let _ = offered.await;
    let (tenure, leaving) = predecessor.replace().await.unwrap();
    assert!(leaving.is_none());
    drop(tenure);
    let claim = inherited(folder.path(), TAKEN_MAX).await.unwrap().into_claim();
    assert!(matches!(claim, Claim::Ours(_)), "a socket that nobody serves: {claim:?}");
}

#[tokio::test]
async fn a_process_without_a_door_keeps_its_place() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(SOCKET)).unwrap();
    let offered = tokio::spawn(offer(folder.path(), vec![listener()]).taken());
    let refused = inherited(folder.path(), LOOK_EVERY).await.unwrap_err();
    assert!(refused.to_string().contains("does not hand it over"), "{refused}");
    assert!(!offered.is_finished() && holder(folder.path()).is_none());
}
