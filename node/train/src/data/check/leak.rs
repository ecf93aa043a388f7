//! Training rows that give an evaluation row away: 13 words in a row in common.
//!
//! The rule of Brown et al. 2020 (arXiv:2005.14165, appendix C): runs that many
//! training rows share are turns of phrase, not leaks.

use std::collections::HashMap;

/// Words in a run.
const RUN: usize = 13;
/// A run in more training rows than this gives nothing away.
const ROWS_MAX: u32 = 10;

/// The words of a text: letters and digits, lower-cased; signs of scripts without spaces one by one.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for piece in text.split(|c: char| !c.is_alphanumeric()).filter(|piece| !piece.is_empty()) {
        match piece.chars().any(|c| c as u32 >= 0x2E80) {
            true => words.extend(piece.chars().map(String::from)),
            false => words.push(piece.to_lowercase()),
        }
    }
    words
}

/// The first 8 bytes of each run's hash.
fn runs(text: &str) -> Vec<u64> {
    let words = words(text);
    let key = |run: &[String]| {
        let hash = blake3::hash(run.join(" ").as_bytes());
        u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap_or(&[0; 8]))
    };
    words.windows(RUN).map(key).collect()
}

/// Lines of `test` that share a run with a few rows of `train`.
pub(super) fn lines(train: &[(u64, String)], test: &[(u64, String)]) -> Vec<u64> {
    let mut rows = HashMap::<u64, u32>::new();
    for (_, text) in train {
        let mut found = runs(text);
        found.sort_unstable();
        found.dedup();
        for run in found {
            *rows.entry(run).or_default() += 1;
        }
    }
    let gives_away = |run: &u64| rows.get(run).is_some_and(|&rows| rows <= ROWS_MAX);
    let leaks = test.iter().filter(|(_, text)| runs(text).iter().any(gives_away));
    leaks.map(|(line, _)| *line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(texts: &[&str]) -> Vec<(u64, String)> {
        texts.iter().zip(1..).map(|(text, line)| (line, (*text).to_owned())).collect()
    }

    #[test]
    fn a_run_of_thirteen_words_is_found_through_case_and_signs() {
        let train =
            rows(&["start. One two three, four five six seven eight nine ten eleven twelve THIRTEEN!"]);
        let hit = "x one two three four five six seven eight nine ten eleven twelve thirteen y";
        let near = "one two three four five six seven eight nine ten eleven twelve and thirteen";
        assert_eq!(lines(&train, &rows(&[near, hit])), [2]);
    }

    #[test]
    fn a_phrase_of_many_rows_is_no_leak() {
        let phrase = "please answer the following question in one short sentence and in plain words only";
        let many: Vec<String> = (0..20).map(|at| format!("{phrase} {at}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(lines(&rows(&many), &rows(&[phrase])).is_empty());
        assert_eq!(lines(&rows(&many[..3]), &rows(&[phrase])), [1]);
    }

    #[test]
    fn scripts_without_spaces_count_by_sign() {
        let text = "春眠不覺曉處處聞啼鳥夜來風雨聲";
        assert_eq!(lines(&rows(&[text]), &rows(&[&text[3..]])), [1]);
    }
}
