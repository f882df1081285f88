//! An upstream that is down: what `up`, `status` and `doctor` say while parts run.

use super::House;

#[test]
fn up_and_doctor_say_what_the_proxy_sees() {
    let house = House::new();
    let plan = std::fs::read_to_string(house.plan()).unwrap();
    let dead = lab::free_port().unwrap();
    let service = plan.lines().find(|line| line.starts_with("services:")).unwrap();
    let down =
        plan.replace(service, &format!("services: {{ hello: {{ upstream: \"http://127.0.0.1:{dead}\" }} }}"));
    std::fs::write(house.plan(), down).unwrap();
    let said = house.ok(&["up", "--detach"]);
    let cross =
        format!("✗ proxy       http://127.0.0.1:{}  cannot reach http://127.0.0.1:{dead}", house.proxy);
    assert!(said.contains(&cross) && said.contains("upstream.unwell"), "{said}");
    let (exit, said) = house.tried(&["doctor"]);
    assert_eq!(exit, 3, "{said}");
    assert!(said.contains("service hello does not answer") && said.contains("1 of 1 live proxies"), "{said}");
    assert!(
        !said.contains("upstream.unreachable") && !said.contains('✔'),
        "what is down is said once: {said}"
    );

    // It comes up again: the same commands agree.
    std::fs::write(house.plan(), &plan).unwrap();
    let said = house.ok(&["up", "--detach"]);
    assert!(
        said.contains(&format!("✔ proxy       http://127.0.0.1:{}", house.proxy)) && !said.contains('✗'),
        "{said}"
    );
    let said = house.ok(&["doctor"]);
    assert!(said.contains("the live systems are ready"), "{said}");
    house.ok(&["down"]);
}
