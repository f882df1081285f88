//! The login of a replication connection (PostgreSQL manual, 55.2.1): by a password as it is, by MD5, or by SCRAM, which is
//! tied to the server's certificate where both sides can.

use super::frame::{FrameError, ServerError};
use super::{Replication, ReplicationError};
use crate::connect::Address;
use bytes::{Buf, Bytes};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::frontend;
use std::io::Error;
use tokio_postgres::config::ChannelBinding;

/// What `pg_stat_activity` shows.
const APPLICATION: &str = "strangler capture";

/// Kinds of an authentication request (PostgreSQL manual, 55.7).
const OK: i32 = 0;
const CLEAR: i32 = 3;
const MD5: i32 = 5;
const SASL: i32 = 10;
const SASL_GOES_ON: i32 = 11;
const SASL_ENDS: i32 = 12;

impl Replication {
    pub(super) async fn log_in(&mut self, address: &Address) -> Result<(), ReplicationError> {
        let options = address.pinned_options();
        let parameters = [
            ("user", address.role()),
            ("database", address.database()),
            ("replication", "database"),
            ("application_name", APPLICATION),
            ("options", &options),
        ];
        self.send(|out| frontend::startup_message(parameters, out)).await?;
        let (mut is_bound, must_bind) = (false, address.channel_binding() == ChannelBinding::Require);
        loop {
            let message = self.message().await?;
            match message.kind {
                b'R' => match login_request(message.body)? {
                    (OK, _) if must_bind && !is_bound => return Err(address.unbound().into()),
                    (OK, _) => {}
                    (SASL, mechanisms) => is_bound = self.scram(address, &mechanisms).await?,
                    _ if must_bind => return Err(address.unbound().into()),
                    (kind, rest) => self.answer(address, kind, &rest).await?,
                },
                b'E' => return Err(ServerError::read(&message.body).into()),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    async fn answer(&mut self, address: &Address, kind: i32, salt: &[u8]) -> Result<(), ReplicationError> {
        match (kind, <[u8; 4]>::try_from(salt)) {
            (CLEAR, _) => {
                let password = address.password()?;
                self.send(|out| frontend::password_message(password, out)).await
            }
            (MD5, Ok(salt)) => {
                let hash = md5_hash(address.role().as_bytes(), address.password()?, salt);
                self.send(|out| frontend::password_message(hash.as_bytes(), out)).await
            }
            (other, _) => Err(ReplicationError::Login(format!(
                "the server asks for a login of kind {other}, which strangler does not know; use scram-sha-256 or cert in \
                 pg_hba.conf"
            ))),
        }
    }

    /// Returns whether the login was tied to the server's certificate.
    async fn scram(&mut self, address: &Address, mechanisms: &[u8]) -> Result<bool, ReplicationError> {
        let offers =
            |name: &str| mechanisms.split(|byte| *byte == 0).any(|offered| offered == name.as_bytes());
        let wanted = address.channel_binding();
        let end_point = self.end_point.take().filter(|_| wanted != ChannelBinding::Disable);
        let (mechanism, binding) = match end_point {
            Some(end_point) if offers(SCRAM_SHA_256_PLUS) => {
                (SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(end_point))
            }
            _ if wanted == ChannelBinding::Require => return Err(address.unbound().into()),
            _ if !offers(SCRAM_SHA_256) => {
                let why = "the server offers no login that strangler knows; use scram-sha-256 in pg_hba.conf";
                return Err(ReplicationError::Login(why.to_owned()));
            }
            // A server that does offer it sees that its offer was taken away in between.
            Some(_) => (SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
            None => (SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        };
        let failed = |error: Error| ReplicationError::Login(error.to_string());
        let mut scram = ScramSha256::new(address.password()?, binding);
        self.send(|out| frontend::sasl_initial_response(mechanism, scram.message(), out)).await?;
        scram.update(&self.scram_reply(SASL_GOES_ON).await?).map_err(failed)?;
        self.send(|out| frontend::sasl_response(scram.message(), out)).await?;
        scram.finish(&self.scram_reply(SASL_ENDS).await?).map_err(failed)?;
        Ok(mechanism == SCRAM_SHA_256_PLUS)
    }

    async fn scram_reply(&mut self, expected: i32) -> Result<Bytes, ReplicationError> {
        let message = self.message().await?;
        match message.kind {
            b'E' => Err(ServerError::read(&message.body).into()),
            b'R' => match login_request(message.body)? {
                (code, words) if code == expected => Ok(words),
                _ => Err(FrameError::Malformed("an answer during SCRAM").into()),
            },
            _ => Err(FrameError::Malformed("an answer during SCRAM").into()),
        }
    }
}

/// The kind of an authentication request and what it brings.
fn login_request(mut body: Bytes) -> Result<(i32, Bytes), FrameError> {
    let kind = body.try_get_i32().map_err(|_| FrameError::Malformed("a request of the login"))?;
    Ok((kind, body))
}
