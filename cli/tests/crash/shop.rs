//! A monolith and a service behind the proxy, as small as can be: each order is a row, and each answer a number.

use crate::house::{House, Log};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::NoTls;

/// A house in front of both, whose reads are at the service.
pub async fn reading_at_the_service() -> House {
    let ((monolith, shop), (service, orders)) = (open("monolith").await, open("service").await);
    let house = House::with_upstreams(&Log::Embedded, monolith, service);
    shop.send_replace(house.source.url("app", "shop"));
    orders.send_replace(house.sink.url("app", "orders"));
    house.ok(&["up", "--detach"]);
    house.ok(&["sync", "start", "orders", "--timeout", "120"]);
    house.ok(&["route", "set", "orders", "100%"]);
    house
}

/// `POST /orders` with a number in the body places that order; the answer comes after the commit. `GET /orders/ID` says
/// how often it was hit, or 404. The answer names its side. Serves as long as the test runs.
async fn open(side: &'static str) -> (u16, tokio::sync::watch::Sender<String>) {
    let (database, url) = tokio::sync::watch::channel(String::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let url = url.borrow().clone();
            tokio::spawn(tokio::time::timeout(Duration::from_secs(10), serve(connection, url, side)));
        }
    });
    (port, database)
}

async fn serve(mut connection: TcpStream, url: String, side: &str) -> Option<()> {
    let mut request = Vec::new();
    let (head, body) = loop {
        if connection.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let lines = head.to_ascii_lowercase();
        let length = lines.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break (head.to_owned(), body.to_owned());
        }
    };
    let (status, answer) = match head.split(' ').collect::<Vec<_>>()[..] {
        ["POST", ..] => match place(&url, &body).await {
            Ok(()) => ("201 Created", "placed".to_owned()),
            Err(error) => ("500 Internal Server Error", error.to_string()),
        },
        ["GET", path, ..] => match show(&url, path.trim_start_matches("/orders/")).await {
            Ok(Some(hits)) => ("200 OK", hits.to_string()),
            Ok(None) => ("404 Not Found", "none".to_owned()),
            Err(error) => ("500 Internal Server Error", error.to_string()),
        },
        _ => ("400 Bad Request", String::new()),
    };
    let length = answer.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nx-side: {side}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{answer}"
    );
    connection.write_all(answer.as_bytes()).await.ok()
}

async fn place(url: &str, id: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let id: i64 = id.parse().unwrap_or_default();
    // Sent twice, it would be hit twice.
    let sql = "INSERT INTO orders VALUES ($1, -1, 1, 'placed') ON CONFLICT (id) DO UPDATE SET hits = orders.hits + 1";
    client.execute(sql, &[&id]).await.map(|_| ())
}

async fn show(url: &str, id: &str) -> Result<Option<i32>, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let id: i64 = id.parse().unwrap_or_default();
    Ok(client.query_opt("SELECT hits FROM orders WHERE id = $1", &[&id]).await?.map(|row| row.get(0)))
}

/// A client that places orders and reads each one at once.
#[derive(Default)]
pub struct Clerk {
    pub acknowledged: Vec<i64>,
    /// Orders that the client gave up: placed or not.
    pub doubtful: Vec<i64>,
    pub by_service: u32,
}

impl Clerk {
    /// One order placed, and read until an answer comes. It must be there: a client reads its own writes.
    pub async fn place_and_read(
        &mut self,
        proxy: u16,
        http: &reqwest::Client,
        id: i64,
        cookies: &mut String,
    ) {
        let base = format!("http://127.0.0.1:{proxy}/orders");
        let placed = http.post(&base).header("cookie", &*cookies).body(id.to_string()).send().await;
        match placed {
            Ok(answer) if answer.status().as_u16() == 201 => {
                keep(cookies, answer.headers());
                self.acknowledged.push(id);
            }
            // No proxy, or one that died under the request.
            Ok(_) | Err(_) => {
                self.doubtful.push(id);
                tokio::time::sleep(Duration::from_millis(20)).await;
                return;
            }
        }
        for _ in 0..600 {
            if let Ok(answer) = http.get(format!("{base}/{id}")).header("cookie", &*cookies).send().await
                && answer.status().as_u16() < 500
            {
                keep(cookies, answer.headers());
                let side = answer.headers().get("x-side").map(|side| side.as_bytes().to_vec());
                self.by_service += u32::from(side.as_deref() == Some(b"service"));
                assert_eq!(answer.text().await.unwrap(), "1", "order {id}, read by {side:?}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("order {id} cannot be read");
    }

    pub async fn read(&mut self, proxy: u16, http: &reqwest::Client, id: i64, cookies: &mut String) {
        let url = format!("http://127.0.0.1:{proxy}/orders/{id}");
        let Ok(answer) = http.get(url).header("cookie", &*cookies).send().await else { return };
        keep(cookies, answer.headers());
        let side = answer.headers().get("x-side").map(|side| side.as_bytes().to_vec());
        self.by_service += u32::from(side.as_deref() == Some(b"service"));
    }
}

/// A browser's cookies, as few as there are here.
fn keep(cookies: &mut String, headers: &reqwest::header::HeaderMap) {
    for set in headers.get_all("set-cookie") {
        let Ok(set) = set.to_str() else { continue };
        let pair = set.split(';').next().unwrap_or_default();
        let name = pair.split('=').next().unwrap_or_default();
        let others =
            cookies.split("; ").filter(|held| !held.is_empty() && held.split('=').next() != Some(name));
        *cookies = others.chain([pair]).collect::<Vec<_>>().join("; ");
    }
}
