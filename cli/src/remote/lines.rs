//! The body of an answer, line by line as it comes. Knows no line's meaning.

use crate::problem::Problem;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::Response;
use std::time::Duration;

/// The longest line. A row of 16 MiB, which is what a plan allows unless it says otherwise, takes six times as much as
/// JSON where it is all control characters, and comes twice where the old row comes too.
const LINE_BYTES_MAX: usize = 256 << 20;

/// The lines that are still to come.
pub struct Lines {
    body: BoxStream<'static, reqwest::Result<Vec<u8>>>,
    /// What came and is no whole line yet.
    held: Vec<u8>,
    /// How much of that holds no line's end: it is not searched again with each part of a long line.
    searched: usize,
    ended: bool,
    /// How long the body may be silent; none: for ever.
    patience: Option<Duration>,
}

impl Lines {
    /// The lines of an answer.
    pub fn of(answer: Response, patience: Option<Duration>) -> Self {
        let body = answer.bytes_stream().map(|part| part.map(|bytes| bytes.to_vec()));
        Self::new(body.boxed(), patience)
    }

    fn new(body: BoxStream<'static, reqwest::Result<Vec<u8>>>, patience: Option<Duration>) -> Self {
        Self { body, held: Vec::new(), searched: 0, ended: false, patience }
    }

    /// The next one; none behind the last, or behind a failure. A line without an end is still one.
    pub async fn next(&mut self) -> Option<Result<String, Problem>> {
        loop {
            if let Some(at) = self.held[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.held.drain(..=self.searched + at).collect();
                self.searched = 0;
                return Some(Ok(text(&line)));
            }
            self.searched = self.held.len();
            if self.ended {
                let line = self.rest();
                return (!line.is_empty()).then(|| Ok(text(&line)));
            }
            match self.part().await {
                Ok(Some(bytes)) => self.held.extend_from_slice(&bytes),
                Ok(None) => self.ended = true,
                Err(problem) => {
                    self.ended = true;
                    // Half a line is none.
                    drop(self.rest());
                    return Some(Err(problem));
                }
            }
        }
    }

    fn rest(&mut self) -> Vec<u8> {
        self.searched = 0;
        std::mem::take(&mut self.held)
    }

    /// What comes next of the body; none at its end.
    async fn part(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        let next = self.body.next();
        let part = match self.patience {
            None => next.await,
            Some(patience) => tokio::time::timeout(patience, next)
                .await
                .map_err(|_| broken(&format!("the bridge sent nothing for {} s", patience.as_secs())))?,
        };
        let part = part.transpose().map_err(|error| broken("the bridge broke off").because(&error))?;
        let bytes = part.as_ref().map_or(0, Vec::len);
        if self.held.len() + bytes > LINE_BYTES_MAX {
            let mib = LINE_BYTES_MAX >> 20;
            return Err(Problem::error(format!("the bridge sent a change of more than {mib} MiB"))
                .hint("read it from its topic, or leave out what is past: `strangler tail -f -n 0`"));
        }
        Ok(part)
    }
}

fn broken(message: &str) -> Problem {
    Problem::error(message).hint("run it again; `strangler status` says who is alive")
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    fn lines(parts: Vec<Vec<u8>>) -> Lines {
        Lines::new(stream::iter(parts.into_iter().map(Ok)).boxed(), None)
    }

    #[tokio::test]
    async fn a_line_may_come_in_parts_and_the_last_without_an_end() {
        let mut lines = lines(["a\nb", "", "c", "\r\n\nd"].map(|part| part.as_bytes().to_vec()).to_vec());
        let mut seen = Vec::new();
        while let Some(line) = lines.next().await {
            seen.push(line.unwrap());
        }
        assert_eq!(seen, ["a", "bc", "", "d"]);
    }

    #[tokio::test]
    async fn a_line_has_a_limit_which_is_named() {
        let mut lines = lines(vec![b"{}\n{".to_vec(), vec![0; LINE_BYTES_MAX]]);
        assert_eq!(lines.next().await.unwrap().unwrap(), "{}");
        let problem = lines.next().await.unwrap().unwrap_err();
        assert!(problem.message.contains("256 MiB"), "{problem}");
        assert!(lines.next().await.is_none());
    }

    #[tokio::test]
    async fn a_body_that_falls_silent_is_left() {
        let mut lines = Lines::new(stream::pending().boxed(), Some(Duration::from_millis(10)));
        let problem = lines.next().await.unwrap().unwrap_err();
        assert!(problem.message.contains("sent nothing"), "{problem}");
        assert!(lines.next().await.is_none());
    }
}
