//! Debezium's heartbeat: a record that says that changes are still looked for, although there may be none
//! (source: Debezium, `SchemaFactory`, `heartbeat.interval.ms`).

use super::{Context, json};

/// One record, and the topic that it goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    pub topic: String,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// The topic's name does not begin with the prefix, so that who reads `<prefix>.*` has tables' topics alone.
pub fn heartbeat(context: &Context, now_us: i64) -> Heartbeat {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    json::string(context.prefix.as_bytes(), &mut key);
    json::number(i128::from(now_us.div_euclid(1000)), &mut value);
    let has_schemas = context.publish.has_schemas;
    Heartbeat {
        topic: format!("__debezium-heartbeat.{}", context.prefix),
        key: structure("ServerNameKey", ("serverName", "string"), &key, has_schemas),
        value: structure("Heartbeat", ("ts_ms", "int64"), &value, has_schemas),
    }
}

/// A struct of one field.
fn structure(name: &str, (field, kind): (&str, &str), value: &[u8], has_schemas: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if has_schemas {
        let schema = format!(
            r#"{{"schema":{{"type":"struct","fields":[{{"type":"{kind}","optional":false,"field":"{field}"}}],"#
        );
        let named = format!(
            r#""optional":false,"name":"io.debezium.connector.common.{name}","version":1}},"payload":"#
        );
        out.extend_from_slice(schema.as_bytes());
        out.extend_from_slice(named.as_bytes());
    }
    out.extend_from_slice(format!(r#"{{"{field}":"#).as_bytes());
    out.extend_from_slice(value);
    out.extend_from_slice(if has_schemas { b"}}" } else { b"}" });
    out
}
