//! A house whose proxy ends TLS: what the verbs say of certificates, and what `reload` does.

use super::{House, free_ports};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

const MAKE: &str = "[ -e ca.pem ] || authority ca
    sign new x ca \"$ec\" subjectAltName=DNS:shop.example 40
    chmod 600 new.key; mv new.key shop.key; mv new.pem shop.pem";

/// A house with `proxy.tls` and this port. Its files are not there yet.
fn house() -> (House, u16) {
    let (house, [port]) = (House::new(), free_ports());
    let file = |name: &str| house.path().join(name).display().to_string();
    let tls = format!(
        "tls: {{ listen: \"127.0.0.1:{port}\", certificates: [{{ certificate: {}, key: {} }}] }}, ",
        file("shop.pem"),
        file("shop.key")
    );
    let plan = fs::read_to_string(house.plan()).unwrap();
    fs::write(house.plan(), plan.replace("proxy: {", &format!("proxy: {{ {tls}"))).unwrap();
    (house, port)
}

/// The answer to a request by TLS, and the certificate in PEM.
fn ask(port: u16) -> (String, String) {
    let to = format!("127.0.0.1:{port}");
    let mut client = Command::new("openssl");
    client.args(["s_client", "-ign_eof", "-servername", "shop.example", "-connect", &to]);
    client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut client = client.spawn().unwrap();
    let request = b"GET /hello HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";
    // It may have been refused already.
    let _ = client.stdin.take().unwrap().write_all(request);
    let said = String::from_utf8_lossy(&client.wait_with_output().unwrap().stdout).into_owned();
    let answer = if said.contains("\r\n\r\nmonolith") { "monolith" } else { "" }.to_owned();
    let pem = said.find("-----BEGIN").zip(said.find("-----END")).map(|(from, to)| &said[from..to]);
    (answer, pem.unwrap_or_default().to_owned())
}

/// The certificate in the file, as [`ask`] shows it.
fn filed(house: &House) -> String {
    let pem = fs::read_to_string(house.path().join("shop.pem")).unwrap();
    pem[..pem.find("-----END").unwrap()].to_owned()
}

#[test]
fn certificates_are_looked_at_before_anything_starts() {
    let (house, _) = house();
    for verb in [&["doctor"][..], &["up", "--detach"]] {
        let (code, said) = house.tried(verb);
        assert_eq!(code, 3, "{said}");
        assert!(said.contains("shop.pem: No such file") && said.contains("put the file there"), "{said}");
    }
    assert_eq!(house.processes(), [] as [i32; 0]);
    lab::certificates(house.path(), MAKE).unwrap();
    assert!(!house.ok(&["doctor"]).contains("proxy.open-key"));
    fs::set_permissions(house.path().join("shop.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let said = house.ok(&["doctor"]);
    assert!(said.contains("proxy.open-key") && said.contains("chmod o= "), "{said}");
}

#[test]
fn a_reload_takes_certificates_and_the_listener() {
    let (house, port) = house();
    let with_tls = fs::read_to_string(house.plan()).unwrap();
    let (from, to) = (with_tls.find("tls: {").unwrap(), with_tls.find("}] }, ").unwrap() + "}] }, ".len());
    let without = format!("{}{}", &with_tls[..from], &with_tls[to..]);
    fs::write(house.plan(), &without).unwrap();
    house.ok(&["up", "--detach"]);
    lab::certificates(house.path(), MAKE).unwrap();
    fs::write(house.plan(), &with_tls).unwrap();
    let taken = house.json(&["reload"]);
    assert_eq!(taken["replaced"], serde_json::json!(["controller", "proxy"]), "{taken}");
    assert_eq!(ask(port), ("monolith".to_owned(), filed(&house)));
    house.eventually("its address", || house.ok(&["status"]).contains(&format!("https://127.0.0.1:{port}")));
    let up = house.json(&["up", "--detach"]);
    assert_eq!(up["https"], format!("https://127.0.0.1:{port}"), "{up}");

    let (proxy, before) = (house.pid("proxy"), filed(&house));
    lab::certificates(house.path(), MAKE).unwrap();
    assert_ne!(filed(&house), before);
    let taken = house.json(&["reload"]);
    assert_eq!(taken["replaced"], serde_json::json!(["controller"]), "{taken}");
    house.eventually("the new certificate", || ask(port).1 == filed(&house));
    // A file that cannot be used: `reload` refuses it, and the proxy says that it shows the one before.
    let shown = filed(&house);
    fs::write(house.path().join("shop.pem"), "no certificate").unwrap();
    let (code, said) = house.tried(&["reload"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("holds no certificate in PEM"), "{said}");
    house.eventually("a finding", || {
        let said = house.ok(&["status"]);
        said.contains("proxy.certificate") && said.contains("read before is shown on")
    });
    assert_eq!(ask(port), ("monolith".to_owned(), shown));
    assert_eq!(house.pid("proxy"), proxy, "it was never replaced");

    fs::write(house.plan(), &without).unwrap();
    house.ok(&["reload"]);
    house.eventually("no listener", || ask(port).0.is_empty());
    assert_eq!(house.ask(), "monolith");
}
