//! What the characters of a source that is not UTF-8 are in UTF-8: the source's own conversion says it.

use super::source::SourceError;
use rows::characters::Characters;
use std::collections::BTreeSet;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

const CONVERT: &str = "SELECT pg_catalog.convert(t.c, pg_catalog.getdatabaseencoding(), 'UTF8') \
    FROM unnest($1::bytea[]) WITH ORDINALITY AS t (c, n) ORDER BY t.n";

/// Learns these characters.
pub(crate) async fn learn(
    client: &Client,
    characters: &mut Characters,
    unknown: BTreeSet<Vec<u8>>,
) -> Result<(), SourceError> {
    let unknown: Vec<Vec<u8>> = unknown.into_iter().collect();
    if let Some(texts) = convert(client, &unknown).await? {
        for (character, text) in unknown.iter().zip(texts) {
            characters.learn(character, std::str::from_utf8(&text).ok());
        }
        return Ok(());
    }
    // One of them has no equivalent.
    for character in unknown {
        let text = convert(client, std::slice::from_ref(&character)).await?.and_then(|mut texts| texts.pop());
        characters.learn(&character, text.as_deref().and_then(|text| std::str::from_utf8(text).ok()));
    }
    Ok(())
}

/// What the characters are; none if one of them has no equivalent.
async fn convert(client: &Client, characters: &[Vec<u8>]) -> Result<Option<Vec<Vec<u8>>>, SourceError> {
    match client.query(CONVERT, &[&characters]).await {
        Ok(rows) => Ok(Some(rows.iter().map(|row| row.get(0)).collect())),
        Err(error) if is_about_characters(error.code()) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_about_characters(code: Option<&SqlState>) -> bool {
    matches!(code, Some(&SqlState::UNTRANSLATABLE_CHARACTER | &SqlState::CHARACTER_NOT_IN_REPERTOIRE))
}
