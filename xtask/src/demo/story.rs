//! The story of the README, told by the real commands: check, install, doctor, up, copy and follow, shared reads, a
//! bridge killed on the way, back to the monolith and forth again; then the writes move, return by themselves, and move
//! to stay, while customers go on ordering.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::claims::Claims;
use super::{Stage, at_service, leftovers, probe};
use crate::terminal;
use lab::interrupt;

/// A read that the service can answer, and a write that both sides refuse as nonsense after saying who they are.
const READ: &str = "/orders";
const WRITE: (&str, &str, &str) = ("POST", "/orders", "{}");
/// How many strangers test where reads go.
const STRANGERS: u32 = 100;
/// How many strangers must all see the same side.
const ALL_OF: u32 = 25;
/// How long customers go on under each share of reads.
const UNDER_EACH_SHARE: Duration = Duration::from_secs(4);
/// Time to read a screen, when a person watches.
const READING: Duration = Duration::from_secs(3);
const PROXY_LIMIT: Duration = Duration::from_secs(30);
/// From kill -9 until what was ordered afterwards is at the service.
const BRIDGE_BACK_LIMIT: Duration = Duration::from_secs(60);
/// From the cutover for half a minute until the monolith owns again.
const RETURN_LIMIT: Duration = Duration::from_secs(90);
/// From a finished route change until strangers see it. It should be no time at all, but agents may be busy.
const ROUTE_LIMIT: Duration = Duration::from_secs(5);

/// Tells the story up to the point where reads are at the service.
pub fn tell(stage: &mut Stage, claims: &mut Claims) -> Result<()> {
    begin(stage)?;
    copy(stage)?;
    share_reads(stage, claims)?;
    kill_the_bridge(stage, claims)?;
    all_reads(stage, claims)?;
    measure(stage, claims)?;
    back_and_forth(stage, claims)?;
    stage.strangler.show("status")?;
    claims.hold("the monolith still owns the tables", stage.owner()? == "monolith");
    stage.still_running()?;
    try_out(stage, claims)?;
    move_writes(stage, claims)
}

fn begin(stage: &mut Stage) -> Result<()> {
    terminal::heading("is the plan sound, are the systems ready?");
    stage.strangler.show("check")?;
    stage.pause()?;
    stage.strangler.show_as_admin("install")?;
    stage.pause()?;
    terminal::heading("the proxy stands in front, and nothing changes");
    stage.strangler.show("up --detach")?;
    stage.strangler.await_proxy(PROXY_LIMIT)?;
    stage.strangler.show("doctor orders")?;
    stage.traffic.start()?;
    terminal::note("from here on customers order, pay, cancel and look, through the proxy, without a pause");
    interrupt::sleep(UNDER_EACH_SHARE)?;
    stage.strangler.show("status")?;
    stage.pause()
}

fn copy(stage: &mut Stage) -> Result<()> {
    terminal::heading("the tables are copied, then followed");
    // Without this option `status -w` would watch the copy for ever.
    stage.strangler.show("sync start orders --timeout 120")?;
    stage.strangler.show("sync status orders")?;
    // The first copy does not pass through the log; what the customers do now does.
    interrupt::sleep(Duration::from_secs(2))?;
    stage.strangler.show("tail orders -n 1")?;
    stage.pause()
}

fn share_reads(stage: &mut Stage, claims: &mut Claims) -> Result<()> {
    terminal::heading("reads move, a share of the clients at a time");
    for percent in [10, 50] {
        stage.strangler.show(&format!("route set orders {percent}%"))?;
        let (service, monolith) = probe::shares(&stage.strangler.proxy, READ, STRANGERS)?;
        terminal::note(&format!(
            "of {STRANGERS} strangers, {service} were served by the service, {monolith} not"
        ));
        if percent == 50 {
            let halves = service.abs_diff(monolith) < STRANGERS / 2;
            claims.hold("at 50 % each side served about half of the clients", halves);
        }
        stage.under_way()?;
    }
    Ok(())
}

fn kill_the_bridge(stage: &mut Stage, claims: &mut Claims) -> Result<()> {
    terminal::heading("bad luck: the bridge is killed");
    let pid = stage.strangler.pid("bridge")?;
    terminal::command(&format!("kill -9 {pid}"));
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    let killed = Instant::now();
    // What the customers have ordered by now, half a second after the bridge's death, it can only learn when it is back.
    interrupt::sleep(Duration::from_millis(500))?;
    let (ordered, _) = stage.shop.newest_orders()?;
    let shop = &stage.shop;
    let back =
        interrupt::await_until("the bridge's return", BRIDGE_BACK_LIMIT, Duration::from_millis(50), || {
            Ok((shop.newest_orders()?.1 >= ordered).then(|| killed.elapsed()))
        });
    let claim = "the bridge went on by itself after kill -9";
    match back {
        Ok(time) => claims.hold_with(claim, true, &format!("{:.1} s", time.as_secs_f64())),
        Err(error) => {
            if !error.is::<interrupt::Interrupted>() {
                claims.hold(claim, false);
            }
            return Err(error);
        }
    }
    let new = stage.strangler.pid("bridge")?;
    claims.hold("it is another process than the one that was killed", new != pid);
    stage.pause()
}

fn all_reads(stage: &mut Stage, claims: &mut Claims) -> Result<()> {
    terminal::heading("all reads are at the service, all writes at the monolith");
    stage.strangler.show("route set orders 100%")?;
    claims.hold("reads at 100 % were served by the service", stage.everyone_sees("orders")?);
    let (method, path, body) = WRITE;
    let mut at_monolith = true;
    for _ in 0..ALL_OF {
        let answer = probe::send(&stage.strangler.proxy, method, path, Some(body))?;
        at_monolith &= answer.served_by.as_deref() == Some("monolith");
    }
    claims.hold("writes stayed at the monolith", at_monolith);
    stage.strangler.show("route list")?;
    stage.under_way()
}

fn measure(stage: &mut Stage, claims: &mut Claims) -> Result<()> {
    let lag = stage.traffic.lag()?;
    println!(
        "\nfrom commit at the monolith to visible at the service: p50 {:.1} ms, p99 {:.1} ms",
        lag.p50_ms, lag.p99_ms
    );
    claims.lag(&lag);
    Ok(())
}

fn back_and_forth(stage: &mut Stage, claims: &mut Claims) -> Result<()> {
    terminal::heading("second thoughts: back, in one command, and forth again");
    stage.strangler.show("route set orders monolith")?;
    claims.hold("back to the monolith in one command", stage.everyone_sees("monolith")?);
    stage.under_way()?;
    stage.strangler.show("route set orders 100%")?;
    claims.hold("and forth again", stage.everyone_sees("orders")?);
    stage.under_way()?;
    stage.strangler.show("journal")
}

/// Writes move to the service for a while and come back by themselves.
fn try_out(stage: &mut Stage, claims: &mut Claims) -> Result<()> {
    terminal::heading("writes move, and come back by themselves unless someone confirms");
    stage.strangler.show("verify orders --full-speed")?;
    stage.strangler.show("writers orders --observe 5s")?;
    stage.strangler.show("doctor orders")?;
    stage.strangler.show("cutover orders --dry-run")?;
    stage.strangler.show("rehearse orders")?;
    claims.hold("a rehearsal changed nothing", stage.owner()? == "monolith");
    stage.strangler.show("cutover orders --for 30s")?;
    claims.hold("the service owned the orders", stage.owner()? == "service");
    let taken = at_service::order(stage, claims)?;
    at_service::refusals(stage, claims)?;
    at_service::job(stage, claims)?;
    terminal::note("nobody confirms");
    let returned = interrupt::await_until("the return", RETURN_LIMIT, Duration::from_millis(200), || {
        Ok((stage.owner()? == "monolith").then_some(()))
    });
    claims.hold("everything returned by itself", returned.is_ok());
    returned?;
    let has_returned = at_service::has_returned(stage, &taken)?;
    claims.hold("an order that was made meanwhile came back with it", has_returned);
    stage.under_way()
}

/// They move again, and stay.
fn move_writes(stage: &mut Stage, claims: &mut Claims) -> Result<()> {
    terminal::heading("once more, and this time it stays");
    stage.strangler.show("cutover orders --for 5m")?;
    stage.strangler.show("confirm orders")?;
    stage.under_way()?;
    stage.strangler.show("status")?;
    claims.hold("the service owns the orders", stage.owner()? == "service");
    claims.hold("customers and stock are still the monolith's", stage.keeps(&["/customers", "/products"])?);
    stage.strangler.show("journal")?;
    stage.still_running()
}

/// Stays up for the audience until Ctrl-C. Returns whether someone stopped strangler meanwhile.
pub fn stay(stage: &mut Stage) -> Result<bool> {
    terminal::heading("it stays up until Ctrl-C; then the customers prove what they were promised");
    println!("the shop, through the proxy:  http://{}/", stage.strangler.proxy);
    println!("the monolith alone:           {}/orders", stage.shop.monolith_url);
    println!("the service alone:            {}/orders", stage.shop.orders_url);
    println!("\nin another terminal:\n{}", stage.strangler.for_another_terminal());
    println!("\nthen try:");
    for line in [
        "status -w",
        "tail orders -f",
        "journal -f",
        "verify orders",
        "rollback orders",
        "route set orders.list 25%",
    ] {
        println!("  strangler {line}");
    }
    let mut was_stopped = false;
    loop {
        if interrupt::sleep(Duration::from_secs(1)).is_err() {
            interrupt::forgive();
            println!();
            return Ok(was_stopped);
        }
        stage.still_running()?;
        if !was_stopped && !stage.strangler.is_up() {
            was_stopped = true;
            terminal::note(
                "strangler was stopped in another terminal, so the customers' requests fail; there, `strangler up --detach` \
                 goes on, and here Ctrl-C ends the demo",
            );
        }
    }
}

/// The end: the customers' proof, and strangler gone without a trace.
pub fn end(stage: &mut Stage, claims: &mut Claims, was_stopped: bool) -> Result<()> {
    terminal::heading("the customers' proof");
    if !stage.strangler.is_up() {
        stage.strangler.show("up --detach")?;
    }
    terminal::note(&stage.traffic.last_words());
    let proof = stage.traffic.finish()?;
    claims.proof(&proof, was_stopped);
    for sample in proof.samples.iter().chain(&proof.proof_samples) {
        println!("    {sample}");
    }
    terminal::heading("and gone without a trace");
    // Whoever tried commands may have gone back, shared reads or dropped the copy already.
    if stage.owner()? == "service" {
        stage.strangler.show("rollback orders")?;
    } else {
        stage.strangler.show("route set orders monolith")?;
    }
    if stage.stands()? != "monolith" {
        stage.strangler.show("sync drop orders --yes")?;
    }
    stage.strangler.show("down")?;
    stage.strangler.show_as_admin("uninstall --yes")?;
    let left = leftovers::find(&stage.shop, stage.broker.as_ref())?;
    for thing in &left {
        println!("    left: {thing}");
    }
    claims.hold("no slot, publication, log, role, schema or trigger is left behind", left.is_empty());
    Ok(())
}

impl Stage {
    /// Gives a person who watches time to read.
    fn pause(&self) -> Result<()> {
        interrupt::sleep(if self.watched { READING } else { Duration::ZERO })
    }

    /// Who owns the orders, by the journal.
    fn owner(&self) -> Result<String> {
        self.of_orders("owner")
    }

    /// The stage of the orders.
    fn stands(&self) -> Result<String> {
        self.of_orders("stage")
    }

    fn of_orders(&self, what: &str) -> Result<String> {
        let status = self.strangler.ask("status")?;
        let found = status.pointer(&format!("/slices/orders/{what}")).and_then(serde_json::Value::as_str);
        Ok(found.unwrap_or_default().to_owned())
    }

    /// Whether the monolith still answers these reads through the proxy.
    fn keeps(&self, paths: &[&str]) -> Result<bool> {
        let mut keeps = true;
        for path in paths {
            let (service, monolith) = probe::shares(&self.strangler.proxy, path, ALL_OF)?;
            keeps &= service == 0 && monolith == ALL_OF;
        }
        Ok(keeps)
    }

    /// Lets the customers go on for a while, and shows how they fare.
    fn under_way(&mut self) -> Result<()> {
        interrupt::sleep(UNDER_EACH_SHARE)?;
        self.still_running()?;
        terminal::note(&format!("traffic: {}", self.traffic.last_words()));
        Ok(())
    }

    /// Fails if the shop or the customers have ended by themselves.
    fn still_running(&mut self) -> Result<()> {
        self.shop.must_be_open()?;
        self.traffic.must_run()
    }

    /// Whether every stranger's read is served by `side` now or within moments.
    fn everyone_sees(&self, side: &str) -> Result<bool> {
        let all =
            |(service, monolith): (u32, u32)| if side == "monolith" { service == 0 } else { monolith == 0 };
        let end = Instant::now() + ROUTE_LIMIT;
        loop {
            let seen = probe::shares(&self.strangler.proxy, READ, ALL_OF)?;
            if seen.0 + seen.1 != ALL_OF {
                bail!("{ALL_OF} strangers asked and {} were answered", seen.0 + seen.1);
            }
            if all(seen) {
                return Ok(true);
            }
            if Instant::now() >= end {
                return Ok(false);
            }
        }
    }
}
