//! A part that cannot start: `up` tries again and again, and every command says why.

use super::House;
use std::net::TcpListener;
use std::process::Stdio;

#[test]
fn a_controller_that_does_not_stay_up_shows_its_last_words() {
    let house = House::new();
    // Somebody else has its port, and answers nothing.
    let taken = TcpListener::bind(("127.0.0.1", house.controller)).unwrap();
    let up = house.command(&["up"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let why = "the controller cannot listen at";
    taken.set_nonblocking(true).unwrap();
    let tells = |arguments: &[&str]| {
        // Whoever asks is turned away.
        while taken.accept().is_ok() {}
        let mut asked =
            house.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while asked.try_wait().unwrap().is_none() {
            drop(taken.accept());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let said = super::folder::said(&asked.wait_with_output().unwrap());
        said.contains("`up` has started the controller again") && said.contains(why)
    };
    house.eventually("a status that says why", || tells(&["status"]));
    house.eventually("an `up` that says why", || tells(&["up"]));
    drop(taken);
    house.eventually("a controller after all", || house.status()["slices"].is_object());
    house.ok(&["down"]);
    let watched = up.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&watched.stderr);
    assert!(said.contains("its last words: ") && said.contains(why), "{said}");
}
