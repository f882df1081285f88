//! Text of others made harmless: a terminal obeys control characters, and a row of a customer may hold some. Pure.

/// The text with `·` in place of each control character, line ends included, so that it can neither steer the terminal
/// nor pass for a line of ours.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

/// The same for text that may have several lines; each after the first is set in, as no line of ours is.
pub fn lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| harmless(line.trim_start())).collect();
    lines.join("\n  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_becomes_dots_and_the_rest_stays() {
        assert_eq!(harmless("name=\x1b]0;mine\x07 Bob\r\n✔ ready\u{9b}2J"), "name=·]0;mine· Bob··✔ ready·2J");
        assert_eq!(harmless("Zoë “née” 王"), "Zoë “née” 王");
    }

    #[test]
    fn a_line_after_the_first_is_set_in() {
        assert_eq!(
            lines("it ended\n  panic\nerror: forged\x1b[2J"),
            "it ended\n  panic\n  error: forged·[2J"
        );
        assert_eq!(lines(""), "");
    }
}
