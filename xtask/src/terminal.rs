//! How this program speaks to a person: headings, commands as typed, good and bad news.
//!
//! Colour only on a terminal, and never when `NO_COLOR` is set.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

fn painted(code: &str, text: &str) -> String {
    static COLOUR: OnceLock<bool> = OnceLock::new();
    let colour =
        *COLOUR.get_or_init(|| std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

pub fn red(text: &str) -> String {
    painted("31;1", text)
}

pub fn green(text: &str) -> String {
    painted("32", text)
}

pub fn dim(text: &str) -> String {
    painted("2", text)
}

pub fn bold(text: &str) -> String {
    painted("1", text)
}

pub fn heading(text: &str) {
    println!("\n{}", bold(&format!("── {text}")));
    flush();
}

pub fn note(text: &str) {
    println!("{}", dim(text));
    flush();
}

/// Shows a command the way a person would type it.
pub fn command(line: &str) {
    println!("\n{} {}", dim("$"), bold(line));
    flush();
}

pub fn verdict(held: bool, text: &str) {
    println!("  {} {text}", if held { green("✓") } else { red("✗") });
    flush();
}

/// Says what is being done and how long it took. On a terminal the seconds count meanwhile.
pub fn during<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    if !std::io::stdout().is_terminal() {
        note(&format!("{what} …"));
        return work();
    }
    let show = |end: &str| {
        print!("\r{}{end}", dim(&format!("{what} … {} s", begun.elapsed().as_secs())));
        flush();
    };
    std::thread::scope(|scope| {
        let (done, is_done) = mpsc::channel::<()>();
        scope.spawn(move || {
            while is_done.recv_timeout(Duration::from_secs(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
                show("");
            }
            show("\n");
        });
        let result = work();
        drop(done);
        result
    })
}

/// Children write to the same terminal; without this their lines would overtake ours.
fn flush() {
    // A terminal that went away is no reason to stop cleaning up.
    let _ = std::io::stdout().flush();
}

/// Asks a question that Enter answers with yes. Without a terminal the answer is yes.
pub fn agrees(question: &str) -> bool {
    if !std::io::stdin().is_terminal() {
        return true;
    }
    print!("{question} [Y/n] ");
    flush();
    let mut answer = String::new();
    if std::io::stdin().lock().read_line(&mut answer).is_err() {
        return false;
    }
    matches!(answer.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes")
}
