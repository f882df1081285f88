//! Changes in the tables of `examples/search`: rows that come, change, change their key, and go.

use anyhow::Result;

use super::house::House;

const ROUNDS: u32 = 8;
/// The bridge is killed within this round.
const KILLED_IN: u32 = 4;

/// One transaction for each line.
fn round(n: u32) -> Vec<String> {
    let first = n * 250;
    vec![
        format!(
            "INSERT INTO customers SELECT g, 'Customer ' || g, (ARRAY['Brno', 'Łódź', 'Ulm'])[1 + g % 3] \
             FROM (SELECT generate_series({0}, {0} + 9) UNION SELECT 1000 + {n}) AS of (g)",
            n * 10
        ),
        format!(
            "INSERT INTO orders SELECT g, (g * 7) % ({n} * 10 + 10), 'order of ' || (ARRAY['tea', 'a \"chair\"', 'lamps'])[1 + g % 3], \
             100 + g % 900, 'new', '2026-01-01Z'::timestamptz + g * interval '1001.001 ms' \
             FROM generate_series({first}, {first} + 249) AS g"
        ),
        format!("UPDATE orders SET state = 'paid', total_cents = total_cents + 1 WHERE id % 5 = {n} % 5"),
        format!("UPDATE orders SET state = 'cancelled' WHERE id % 23 = {n}"),
        format!("UPDATE orders SET id = id + 1000000 WHERE id < 1000000 AND id % 97 = {n}"),
        format!("DELETE FROM orders WHERE id % 31 = {n}"),
        format!("UPDATE customers SET town = 'Ulm', name = name || '!' WHERE id % 10 = {n}"),
        format!(
            "BEGIN; UPDATE orders SET customer_id = (customer_id + 1) % ({n} * 10 + 10) WHERE id % 11 = {n}; \
             DELETE FROM customers WHERE id = 999 + {n} AND {n} > 0; COMMIT"
        ),
    ]
}

/// Makes all changes, and kills the bridge in between.
pub fn run(house: &House) -> Result<()> {
    for n in 0..ROUNDS {
        for (at, sql) in round(n).iter().enumerate() {
            house.change(sql)?;
            if (n, at) == (KILLED_IN, 2) {
                house.kill_bridge()?;
            }
        }
    }
    Ok(())
}
