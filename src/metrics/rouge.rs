//! ROUGE-L (Lin, 2004) as the COCO caption tools compute it (`pycocoevalcap` 1.2, `rouge.py`).
//!
//! One candidate against its references; the corpus score is the mean over images, taken by the caller. It does not tokenise.
//!
//! ```
//! use vlp::metrics::rouge::rouge_l;
//! // Precision 2/3, recall 1.
//! let f = (1.0 + 1.44) * (2.0 / 3.0) / (1.0 + 1.44 * (2.0 / 3.0));
//! assert!((rouge_l(&[1, 2, 3], [&[1, 3][..]]) - f).abs() < 1e-12);
//! ```

/// Weight of recall against precision.
const BETA: f64 = 1.2;

/// ROUGE-L of one candidate, 0 to 1.
///
/// With `L` the length of a longest common subsequence: `P = max L/|candidate|`, `R = max L/|reference|`, the two maxima taken over the references
/// SEPARATELY (they may come from different references), and `F = (1 + β²)·P·R / (R + β²·P)` with β = 1.2; 0 where P or R is 0.
///
/// The COCO tools split at single spaces, so that an empty sentence is ONE empty word: '' against '' scores 1.
/// Pass words split that way; a sentence of no words scores 0.
pub fn rouge_l<'a>(candidate: &[u32], references: impl IntoIterator<Item = &'a [u32]>) -> f64 {
    let (mut precision, mut recall) = (0.0_f64, 0.0_f64);
    let mut row = Vec::new();
    for reference in references {
        let common = longest_common_subsequence(candidate, reference, &mut row) as f64;
        if common > 0.0 {
            precision = precision.max(common / candidate.len() as f64);
            recall = recall.max(common / reference.len() as f64);
        }
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    (1.0 + BETA * BETA) * precision * recall / (recall + BETA * BETA * precision)
}

/// `row` is scratch memory.
fn longest_common_subsequence(left: &[u32], right: &[u32], row: &mut Vec<u32>) -> u32 {
    row.clear();
    row.resize(right.len() + 1, 0);
    for x in left {
        let mut diagonal = 0;
        for (j, y) in right.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(candidate: &[u32], references: &[&[u32]]) -> f64 {
        rouge_l(candidate, references.iter().copied())
    }

    #[test]
    fn one_reference() {
        // Lin (2004): "police killed the gunman" against "police kill the gunman": 3 of 4 in order.
        assert_eq!(score(&[1, 5, 3, 4], &[&[1, 2, 3, 4]]), 0.75);
        // "the gunman kill police": 2 of 4.
        assert_eq!(score(&[3, 4, 2, 1], &[&[1, 2, 3, 4]]), 0.5);
        assert_eq!(score(&[9], &[&[1, 2]]), 0.0);
    }

    #[test]
    fn maxima_are_taken_separately() {
        // P = 1 from the long reference, R = 1 from the short one: a perfect score that neither reference gives alone.
        let long: &[u32] = &[1, 8, 2, 9, 8, 9];
        let short: &[u32] = &[1];
        assert_eq!(score(&[1, 2], &[long, short]), 1.0);
        assert!(score(&[1, 2], &[long]) < 1.0 && score(&[1, 2], &[short]) < 1.0);
    }

    #[test]
    fn empty_sentence_is_one_empty_word() {
        assert_eq!(score(&[0], &[&[0]]), 1.0);
        assert_eq!(score(&[], &[&[0]]), 0.0);
        assert_eq!(score(&[1], &[]), 0.0);
    }
}
