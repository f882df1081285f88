//! A door in front of the monolith's inner door, where calls can be lost, repeated and delayed, and a service killed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::put;
use lab::process::Background;
use tokio::sync::watch;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Passes,
    /// It never arrives.
    Lost,
    /// It arrives, but its answer does not.
    Unanswered,
    /// It arrives twice.
    Twice,
    /// It arrives late.
    Late(Duration),
    /// The service is killed before it arrives.
    KilledBefore,
    /// The service is killed after it was carried out, and before it is answered.
    KilledAfter,
}

type Fates = dyn FnMut(&str, &str) -> Fate + Send;

#[derive(Clone)]
pub struct Door {
    inner: String,
    fates: Arc<Mutex<Box<Fates>>>,
    service: Arc<Mutex<Option<Background>>>,
    sagas: Arc<Mutex<BTreeSet<String>>>,
    http: reqwest::Client,
}

impl Door {
    /// A door to `inner` through which everything passes.
    pub fn to(inner: &str) -> Self {
        let fates: Box<Fates> = Box::new(|_, _| Fate::Passes);
        Self {
            inner: inner.to_owned(),
            fates: Arc::new(Mutex::new(fates)),
            service: Arc::default(),
            sagas: Arc::default(),
            http: reqwest::Client::new(),
        }
    }

    pub async fn serve(&self, stop: watch::Receiver<bool>) -> String {
        super::serve(axum::Router::new().route("/calls/{key}", put(call)).with_state(self.clone()), stop)
            .await
    }

    /// From now on each call's fate is what `fates` says of its saga and its step.
    pub fn decide(&self, fates: impl FnMut(&str, &str) -> Fate + Send + 'static) {
        *self.fates.lock().unwrap() = Box::new(fates);
    }

    /// The next saga, which the door has not met yet, has this fate at this step, once. Everything else passes.
    pub fn decide_once(&self, step: &'static str, fate: Fate) {
        let known = self.sagas.lock().unwrap().clone();
        let mut done = false;
        self.decide(move |saga, its_step| {
            if done || its_step != step || known.contains(saga) {
                return Fate::Passes;
            }
            done = true;
            fate
        });
    }

    /// The service that is killed.
    pub fn watch_over(&self, service: Background) {
        *self.service.lock().unwrap() = Some(service);
    }

    /// Kills the service with -9.
    pub async fn kill(&self) {
        let service = self.service.lock().unwrap().take();
        if let Some(mut service) = service {
            tokio::task::spawn_blocking(move || service.kill()).await.unwrap();
        }
    }

    /// Has the service been killed?
    pub fn killed(&self) -> bool {
        self.service.lock().unwrap().is_none()
    }

    async fn forward(&self, key: &str, body: &Bytes) -> Response {
        let url = format!("{}/calls/{}", self.inner, key.replace('/', "%2F"));
        let request = self.http.put(url).header("content-type", "application/json").body(body.clone());
        match request.send().await {
            Ok(answer) => (answer.status(), answer.bytes().await.unwrap_or_default()).into_response(),
            Err(_) => StatusCode::BAD_GATEWAY.into_response(),
        }
    }
}

async fn call(State(door): State<Door>, Path(key): Path<String>, body: Bytes) -> Response {
    let (saga, step) = key.split_once('/').unwrap();
    let fate = (door.fates.lock().unwrap())(saga, step);
    door.sagas.lock().unwrap().insert(saga.to_owned());
    let lost = || StatusCode::BAD_GATEWAY.into_response();
    match fate {
        Fate::Passes => door.forward(&key, &body).await,
        Fate::Lost => lost(),
        Fate::Unanswered => {
            door.forward(&key, &body).await;
            lost()
        }
        Fate::Twice => {
            let (first, second) = tokio::join!(door.forward(&key, &body), door.forward(&key, &body));
            assert_eq!(first.status(), second.status());
            second
        }
        Fate::Late(time) => {
            // Its own task: the caller may hang up before, and the call still arrives.
            let late = tokio::spawn(async move {
                tokio::time::sleep(time).await;
                door.forward(&key, &body).await
            });
            late.await.unwrap_or_else(|_| lost())
        }
        Fate::KilledBefore => {
            door.kill().await;
            lost()
        }
        Fate::KilledAfter => {
            door.forward(&key, &body).await;
            door.kill().await;
            lost()
        }
    }
}
