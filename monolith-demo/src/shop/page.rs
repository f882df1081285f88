//! The shop's front page, rendered on the server: customers and the latest orders.

use std::fmt::Write as _;

use axum::extract::State;
use axum::response::Html;

use super::Shop;
use super::order::{Order, Search};
use super::refusal::Refusal;

const STYLE: &str = "\
:root{--ink:#22313f;--soft:#6b7c8c;--line:#e3e8ee;--card:#fff;--back:#f4f6f9;--accent:#0b7285}\
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);\
font:15px/1.5 system-ui,sans-serif}header{background:var(--accent);color:#fff;padding:1.2rem 2rem}\
header h1{margin:0;font-size:1.3rem}header p{margin:0;opacity:.8}main{display:grid;gap:1.5rem;\
grid-template-columns:3fr 2fr;padding:1.5rem 2rem;max-width:80rem;margin:auto}\
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1rem 1.2rem;overflow-x:auto}\
h2{font-size:1rem;margin:.2rem 0 .8rem}table{border-collapse:collapse;width:100%}\
th{font-weight:500;color:var(--soft);text-align:left}th,td{padding:.3rem .5rem;border-bottom:1px solid var(--line)}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}a{color:var(--accent);text-decoration:none}\
.s{border-radius:99px;padding:.05rem .6rem;font-size:.85em;background:#e7f5ff}.s.cancelled{background:#ffe3e3}\
.s.delivered{background:#e6fcf5}.s.placed{background:#fff3bf}td.note{color:var(--soft);max-width:16rem;\
overflow:hidden;text-overflow:ellipsis;white-space:nowrap}@media(max-width:60rem){main{grid-template-columns:1fr}}";

/// `GET /`.
pub async fn front(State(shop): State<Shop>) -> Result<Html<String>, Refusal> {
    let orders = shop.search(&Search::default(), 25).await?.orders;
    let customers = shop.customers(25).await?;
    let mut rows = String::new();
    for order in &orders {
        push_order(&mut rows, order);
    }
    let mut people = String::new();
    for customer in &customers {
        // Writing to a String cannot fail.
        let _ = write!(
            people,
            "<tr><td><a href=\"/orders?customer={0}\">{0}</a></td><td>{1}</td><td class=n>{2}</td></tr>",
            customer.id,
            escape(&customer.name),
            customer.credit_limit
        );
    }
    Ok(Html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>The shop</title><style>{STYLE}</style><header><h1>The shop</h1>\
         <p>everything in one place, since long ago</p></header><main><section><h2>Last orders</h2><table>\
         <tr><th>No.<th>Customer<th>Status<th class=n>Total<th class=n>Paid<th>Note</tr>{rows}</table></section>\
         <section><h2>Customers</h2><table><tr><th>No.<th>Name<th class=n>Credit</tr>{people}</table></section>\
         </main></html>"
    )))
}

fn push_order(rows: &mut String, order: &Order) {
    // Writing to a String cannot fail.
    let _ = write!(
        rows,
        "<tr><td><a href=\"/orders/{0}\">{0}</a></td><td>{1}</td><td><span class=\"s {2}\">{2}</span></td>\
         <td class=n>{3}</td><td class=n>{4}</td><td class=note>{5}</td></tr>",
        order.id,
        order.customer,
        order.status.as_str(),
        order.total,
        order.paid,
        escape(order.note.as_deref().unwrap_or(""))
    );
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    #[test]
    fn text_of_customers_cannot_become_markup() {
        assert_eq!(super::escape("<b a=\"'\">&"), "&lt;b a=&quot;&#39;&quot;&gt;&amp;");
    }
}
