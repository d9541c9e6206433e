//! The official rule: how right an answer is, given what people answered (github.com/GT-Vision-Lab/VQA, a013f00).
//!
//! One question at a time; means are taken by the caller. What normalisation does is in `normalise.rs`.

use super::HumanAnswer;
use super::normalise::{digit_article, normalise, punctuation, strip};

/// Accuracy of a prediction, 0 to 1: with ten answers, of which k equal it, 0, 0.3, 0.6, 0.9 and 1 for k = 0, 1, 2, 3 and
/// more.
///
/// Line ends and tabs become spaces and edges are stripped, on both sides. Only if the people's answers then differ from
/// each other, both sides are normalised; where all agree, the strings are compared as they are (`two` against ten times
/// `2` is wrong).
pub fn accuracy(prediction: &str, answers: &[HumanAnswer]) -> f64 {
    let prediction = strip(prediction);
    let stripped: Vec<String> = answers.iter().map(|a| strip(&a.answer)).collect();
    if stripped.windows(2).all(|pair| pair[0] == pair[1]) {
        return leave_one_out(&prediction, &stripped, answers);
    }
    let normalised: Vec<String> = stripped.iter().map(|text| normalise(text)).collect();
    leave_one_out(&digit_article(&punctuation(&prediction)), &normalised, answers)
}

/// Mean over the people of `min(1, (others who gave the prediction) / 3)`, where others are those whose answer or
/// identity differs. `texts` are the answers as they are compared. 0 without answers.
pub(super) fn leave_one_out<T: AsRef<str>>(prediction: &str, texts: &[T], answers: &[HumanAnswer]) -> f64 {
    let people: Vec<(&str, &str)> =
        texts.iter().zip(answers).map(|(text, answer)| (text.as_ref(), answer.identity.as_str())).collect();
    let right: Vec<&(&str, &str)> = people.iter().filter(|(text, _)| *text == prediction).collect();
    let sum: f64 = people
        .iter()
        .map(|person| right.iter().filter(|other| **other != person).count())
        .map(|agreeing| (agreeing as f64 / 3.0).min(1.0))
        .sum();
    sum / people.len().max(1) as f64
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
    fn by_number_of_people_who_agree() {
        for (agreeing, expected) in [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0)] {
            let mut answers = vec!["a dog"; agreeing];
            let others: Vec<String> = (agreeing..10).map(|i| format!("other {i}")).collect();
            answers.extend(others.iter().map(String::as_str));
            assert!((accuracy("Dog", &people(&answers)) - expected).abs() < 1e-12, "{agreeing}");
        }
    }

    #[test]
    fn unanimous_answers_are_compared_as_they_are() {
        assert_eq!(accuracy("two", &people(&["2"; 10])), 0.0);
        assert_eq!(accuracy("Yes", &people(&["yes"; 10])), 0.0);
        assert_eq!(accuracy(" yes\t", &people(&["yes", "yes ", "\nyes"])), 1.0 * 2.0 / 3.0);
    }

    #[test]
    fn answers_without_identity_drop_their_twins() {
        let twin = |text: &str| HumanAnswer { answer: text.into(), identity: String::new() };
        let answers = [twin("red"), twin("red"), twin("blue"), twin("green")];
        assert!((accuracy("red", &answers) - (0.0 + 0.0 + 2.0 / 3.0 + 2.0 / 3.0) / 4.0).abs() < 1e-12);
    }
}
