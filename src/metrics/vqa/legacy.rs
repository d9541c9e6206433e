//! The rule of the evaluator that VLP's published dev accuracy comes from (pythia c6796cc, `legacy/eval_model`).
//!
//! Kept to compare with the published number; it is not the official rule, and lower where answers are unclean.

use super::HumanAnswer;
use super::accuracy::leave_one_out;
use super::normalise::{normalise, punctuation, strip};

/// Accuracy of a prediction, 0 to 1.
///
/// The prediction is always stripped and normalised in full. The people's answers are not stripped, and get the
/// punctuation step alone, and that only if they differ from each other: an answer `Two`, `a dog` or `yes ` is never met.
pub fn accuracy(prediction: &str, answers: &[HumanAnswer]) -> f64 {
    let prediction = normalise(&strip(prediction));
    let differ = answers.windows(2).any(|pair| pair[0].answer != pair[1].answer);
    let text = |a: &HumanAnswer| if differ { punctuation(&a.answer) } else { a.answer.clone() };
    leave_one_out(&prediction, &answers.iter().map(text).collect::<Vec<_>>(), answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people(answers: &[&str]) -> Vec<HumanAnswer> {
        let answer =
            |(index, text): (usize, &&str)| HumanAnswer { answer: (*text).into(), identity: index.to_string() };
        answers.iter().enumerate().map(answer).collect()
    }

    #[test]
    fn only_the_prediction_is_normalised_in_full() {
        assert_eq!(accuracy("two", &people(&["two"; 10])), 0.0);
        assert_eq!(accuracy("Yes", &people(&["yes"; 10])), 1.0);
        assert_eq!(accuracy("dog", &people(&["a dog", "a dog", "a dog", "a dog", "cat"])), 0.0);
        assert_eq!(accuracy("stop sign", &people(&["stop-sign", "stop-sign", "stop-sign", "stop-sign", "sign"])), 1.0);
    }
}
