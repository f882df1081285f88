//! The two connections of an exchange: the request goes up, the answer comes down, and every wait has an end.
//!
//! Both directions move at the same time. An upstream may answer before it has read everything, and may stop reading
//! until its answer is taken. A relay decides nothing about requests.

use crate::connection::Connection;
use crate::deadline::Deadline;
use crate::failure::Failure;
use crate::passage::{End, Fault, Passage};
use crate::wire::Wire;
use http1::{AnswerHead, Framing, RequestHead};
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// The wait for the client's next byte, or until it takes the next bytes.
pub(crate) const CLIENT_PATIENCE: Duration = Duration::from_secs(60);
/// An upgraded connection may be silent this long.
const TUNNEL_PATIENCE: Duration = Duration::from_secs(3600);
/// After one side has ended, the other side has this long to finish.
const TUNNEL_END_PATIENCE: Duration = Duration::from_secs(10);
/// A client may send this much before it has its answer.
const AHEAD_BYTES_MAX: usize = 64 << 10;

pub(crate) struct Relay<'a> {
    pub(crate) client: &'a mut Wire,
    pub(crate) upstream: &'a mut Wire,
    pub(crate) request: &'a RequestHead,
    pub(crate) answer: &'a mut AnswerHead,
    pub(crate) deadline: &'a mut Deadline,
    /// The wait for the upstream's next byte, or until it takes the next bytes.
    pub(crate) patience: Duration,
}

impl Relay<'_> {
    /// Sends the request until the head of an answer is here.
    pub(crate) async fn ask(&mut self, upload: &mut Passage) -> Result<(), Failure> {
        let mut turn = None;
        poll_fn(|cx| {
            let before = self.upstream.moved;
            if self.poll_upload(cx, upload)?.is_ready() {
                self.watch_client(cx, upload)?;
            }
            loop {
                match self.answer.read(&mut self.upstream.inbox) {
                    Ok(true) => return Poll::Ready(Ok(())),
                    Ok(false) => {}
                    Err(malformed) => return Poll::Ready(Err(Failure::BadAnswer(malformed))),
                }
                match self.upstream.poll_read(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(Err(Failure::Broken)),
                    Poll::Pending => break,
                }
            }
            let (patience, late) = match upload.waits_for {
                End::Source if !upload.is_over() => (CLIENT_PATIENCE, Failure::ClientLate),
                _ => (self.patience, Failure::Late),
            };
            // A new side to wait for gets its full time.
            let is_new = turn.replace(late) != Some(late) || self.upstream.moved != before;
            self.poll_deadline(cx, is_new, patience, late)
        })
        .await
    }

    /// Brings the answer's body to the client, and the rest of the request's body to the upstream.
    pub(crate) async fn bring(
        &mut self,
        upload: &mut Passage,
        download: &mut Passage,
    ) -> Result<(), Failure> {
        let mut turn = None;
        poll_fn(|cx| {
            let before = self.upstream.moved + self.client.moved;
            if let Poll::Ready(passed) = download.poll(cx, self.upstream, self.client) {
                return Poll::Ready(passed.map_err(of_answer));
            }
            if self.poll_upload(cx, upload)?.is_ready() {
                self.watch_client(cx, upload)?;
            }
            let (patience, late) = match (download.waits_for, upload.waits_for) {
                (End::Sink, _) => (CLIENT_PATIENCE, Failure::ClientLate),
                (End::Source, End::Source) if !upload.is_over() => (CLIENT_PATIENCE, Failure::ClientLate),
                _ => (self.patience, Failure::Late),
            };
            let has_moved = self.upstream.moved + self.client.moved != before;
            let is_new = turn.replace(late) != Some(late) || has_moved;
            self.poll_deadline(cx, is_new, patience, late)
        })
        .await
    }

    /// Carries any bytes both ways until one side ends, or until `cut`. Returns how many the client got, and whether it
    /// was cut.
    pub(crate) async fn tunnel(&mut self, cut: impl Future<Output = ()>) -> (u64, bool) {
        let mut cut = pin!(cut);
        let mut is_cut = false;
        let mut up = Passage::new(Framing::UntilClose, Framing::UntilClose);
        let mut down = Passage::new(Framing::UntilClose, Framing::UntilClose);
        self.deadline.set(TUNNEL_PATIENCE);
        let mut is_ending = false;
        poll_fn(|cx| {
            if cut.as_mut().poll(cx).is_ready() {
                is_cut = true;
                let _ = (self.upstream.poll_end(cx), self.client.poll_end(cx));
                return Poll::Ready(());
            }
            let before = self.upstream.moved + self.client.moved;
            // A broken side counts as ended.
            let up_is_over = up.is_over() || up.poll(cx, self.client, self.upstream).is_ready();
            let down_is_over = down.is_over() || down.poll(cx, self.upstream, self.client).is_ready();
            if up_is_over {
                up.give_up();
                let _ = self.upstream.poll_end(cx);
            }
            if down_is_over {
                down.give_up();
                let _ = self.client.poll_end(cx);
            }
            if up_is_over && down_is_over {
                return Poll::Ready(());
            }
            if (up_is_over || down_is_over) && !is_ending {
                is_ending = true;
                self.deadline.set(TUNNEL_END_PATIENCE);
            } else if !is_ending && self.upstream.moved + self.client.moved != before {
                self.deadline.set(TUNNEL_PATIENCE);
            }
            self.deadline.poll(cx)
        })
        .await;
        (down.bytes, is_cut)
    }

    pub(crate) async fn flush(&mut self) -> Result<(), Failure> {
        flush(self.client, self.deadline).await
    }

    /// Moves the request's body. Ready when nothing is left to move.
    fn poll_upload(&mut self, cx: &mut Context<'_>, upload: &mut Passage) -> Result<Poll<()>, Failure> {
        if upload.is_over() && (upload.is_refused() || self.upstream.has_sent()) {
            return Ok(Poll::Ready(()));
        }
        match upload.poll(cx, self.client, self.upstream) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Ready(Err(Fault::Closed(End::Sink))) => {
                // The upstream reads no further, but it may have answered already.
                self.upstream.outbox.clear();
                upload.refuse();
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Err(Fault::Closed(End::Source))) => Err(Failure::ClientLeft),
            Poll::Ready(Err(Fault::Malformed(malformed))) => Err(Failure::Malformed(malformed)),
            Poll::Ready(Err(Fault::TooLarge)) => Err(Failure::TooLarge),
        }
    }

    /// Notices a client that leaves before it has its answer. What the client sends ahead stays unread.
    fn watch_client(&mut self, cx: &mut Context<'_>, upload: &Passage) -> Result<(), Failure> {
        while upload.is_whole() && self.client.inbox.len() < AHEAD_BYTES_MAX {
            match self.client.poll_read(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Err(Failure::ClientLeft),
            }
        }
        Ok(())
    }

    fn poll_deadline(
        &mut self,
        cx: &mut Context<'_>,
        is_new: bool,
        patience: Duration,
        late: Failure,
    ) -> Poll<Result<(), Failure>> {
        if is_new {
            self.deadline.set(patience);
        }
        ready!(self.deadline.poll(cx));
        Poll::Ready(Err(late))
    }
}

/// Waits until the upstream has answered, although no client waits for the answer any more.
pub(crate) async fn outlast(mut upstream: Connection, patience: Duration) {
    let (mut answer, mut deadline) = (AnswerHead::default(), Deadline::after(patience));
    poll_fn(|cx| {
        loop {
            match answer.read(&mut upstream.wire.inbox) {
                Ok(true) if answer.is_interim() => {}
                Ok(false) => match upstream.wire.poll_read(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return deadline.poll(cx),
                },
                _ => return Poll::Ready(()),
            }
        }
    })
    .await;
}

pub(crate) async fn flush(client: &mut Wire, deadline: &mut Deadline) -> Result<(), Failure> {
    deadline.set(CLIENT_PATIENCE);
    poll_fn(|cx| match client.poll_send(cx) {
        Poll::Ready(sent) => Poll::Ready(sent.map_err(|_| Failure::ClientLeft)),
        Poll::Pending => deadline.poll(cx).map(|()| Err(Failure::ClientLate)),
    })
    .await
}

fn of_answer(fault: Fault) -> Failure {
    match fault {
        Fault::Closed(End::Sink) => Failure::ClientLeft,
        Fault::TooLarge => Failure::AnswerTooLarge,
        Fault::Malformed(malformed) => Failure::BadAnswer(malformed),
        Fault::Closed(End::Source) => Failure::Broken,
    }
}
