//! Makes foreign text safe to print: a customer's row may hold control characters, and a terminal obeys them. Pure.

/// Replaces each control character with `·`, line ends too. The text can then neither steer the terminal nor forge
/// one of our lines.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

/// The same for several lines. Each line after the first is indented, so that it cannot forge one of our lines.
pub(crate) fn lines(text: &str) -> String {
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
    fn each_line_after_the_first_is_indented() {
        assert_eq!(
            lines("it ended\n  panic\nerror: forged\x1b[2J"),
            "it ended\n  panic\n  error: forged·[2J"
        );
        assert_eq!(lines(""), "");
    }
}
