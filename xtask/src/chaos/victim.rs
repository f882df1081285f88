//! A Postgres cluster and a Kafka broker as victims. And who kills and freezes each of them and each program, as the schedule says, and starts it again as a supervisor would.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::{Broker, Cluster, interrupt};

use super::outage::Outages;
use super::schedule::{Blow, How, Part};
use super::screen::Screen;
use crate::program::Victim;

/// How long a part may take to answer again after its new start. Postgres replays its WAL, Kafka waits for its old session.
const RETURN_LIMIT: Duration = Duration::from_secs(90);
/// A move that does not begin so soon is not waited for.
const AIM_LIMIT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// A whole cluster. Each of its starts begins its log anew, so what it said before is kept in `log`.
pub struct Database<'a> {
    pub cluster: &'a Cluster,
    pub name: &'static str,
    pub log: PathBuf,
}

impl Victim for Database<'_> {
    fn kill(&mut self) {
        self.cluster.kill();
    }

    fn restart(&mut self) -> Result<()> {
        keep(&self.cluster.log(), &self.log)?;
        self.cluster.run()
    }

    fn freeze(&mut self) {
        self.cluster.freeze();
    }

    fn thaw(&mut self) {
        self.cluster.thaw();
    }

    fn is_well(&mut self) -> bool {
        self.cluster.psql(self.name, "SELECT 1").is_ok()
    }

    fn must_run(&mut self) -> Result<()> {
        self.cluster.must_run()
    }
}

pub struct Log<'a> {
    pub broker: &'a mut Broker,
    pub log: PathBuf,
}

impl Victim for Log<'_> {
    fn kill(&mut self) {
        self.broker.kill();
    }

    /// Waits until it serves.
    fn restart(&mut self) -> Result<()> {
        keep(&self.broker.log(), &self.log)?;
        self.broker.restart()
    }

    fn freeze(&mut self) {
        self.broker.freeze();
    }

    fn thaw(&mut self) {
        self.broker.thaw();
    }

    /// Whoever is thawed serves: it was not asked anything meanwhile that it would have to repair.
    fn is_well(&mut self) -> bool {
        true
    }

    fn must_run(&mut self) -> Result<()> {
        self.broker.must_run()
    }
}

/// Appends what a server said to the log of all its lives. A server that said nothing has no log.
pub fn keep(from: &Path, to: &Path) -> Result<()> {
    let said = fs::read(from).unwrap_or_default();
    let file = File::options().create(true).append(true).open(to);
    file.and_then(|mut file| file.write_all(&said))
        .with_context(|| format!("{} cannot be written", to.display()))
}

/// One part and all that happens to it.
pub struct Fate<'a> {
    pub part: Part,
    pub blows: Vec<Blow>,
    pub victim: Box<dyn Victim + 'a>,
}

/// What those who break parts and those who make moves have in common.
pub struct Scene<'a> {
    pub began: Instant,
    pub outages: &'a Outages,
    pub screen: &'a Screen,
    /// Whether everything shall end.
    pub is_over: &'a AtomicBool,
    /// How many moves have begun.
    pub moves: AtomicUsize,
}

impl Scene<'_> {
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Fate<'_> {
    /// Deals the blows, and watches the part until everything is over: no part may end by itself.
    /// `done` counts the blows.
    pub fn run(&mut self, scene: &Scene<'_>, done: &AtomicUsize) -> Result<()> {
        for blow in std::mem::take(&mut self.blows) {
            self.watch(scene, Some(scene.began + blow.at))?;
            if let Some(aim) = blow.aim {
                self.take_aim(scene, aim)?;
            }
            if scene.is_over() {
                return Ok(());
            }
            self.deal(blow, scene)?;
            done.fetch_add(1, Ordering::Relaxed);
        }
        self.watch(scene, None)
    }

    fn watch(&mut self, scene: &Scene<'_>, until: Option<Instant>) -> Result<()> {
        while !scene.is_over() && until.is_none_or(|until| Instant::now() < until) {
            self.victim.must_run().with_context(|| format!("{} ended by itself", self.part))?;
            let left = until.map_or(LOOK, |until| until.saturating_duration_since(Instant::now()));
            interrupt::sleep(left.min(LOOK))?;
        }
        Ok(())
    }

    /// Waits for the next move, and then for `aim`.
    fn take_aim(&mut self, scene: &Scene<'_>, aim: Duration) -> Result<()> {
        let (before, end) = (scene.moves.load(Ordering::Relaxed), Instant::now() + AIM_LIMIT);
        while scene.moves.load(Ordering::Relaxed) == before && Instant::now() < end && !scene.is_over() {
            interrupt::sleep(LOOK)?;
        }
        self.watch(scene, Some(Instant::now() + aim))
    }

    fn deal(&mut self, blow: Blow, scene: &Scene<'_>) -> Result<()> {
        let (part, began) = (self.part, Instant::now());
        let outage = scene.outages.begin(part, blow.how);
        scene.screen.line(&format!("✗ {part} is {} for {} ms", blow.how.word(), blow.lasts.as_millis()));
        match blow.how {
            How::Kill => {
                self.victim.kill();
                interrupt::sleep(blow.lasts)?;
                self.victim.restart()?;
            }
            How::Freeze => {
                self.victim.freeze();
                let slept = interrupt::sleep(blow.lasts);
                self.victim.thaw();
                slept?;
            }
        }
        let end = Instant::now() + RETURN_LIMIT;
        while !self.victim.is_well() {
            self.victim.must_run().with_context(|| format!("{part} ended by itself"))?;
            if Instant::now() >= end {
                bail!("{part} did not answer again within {} s", RETURN_LIMIT.as_secs());
            }
            interrupt::sleep(LOOK)?;
        }
        scene.outages.end(outage);
        scene.screen.line(&format!("✓ {part} is back after {} ms", began.elapsed().as_millis()));
        Ok(())
    }
}
