//! What a call of feedback changes, decided from what is known of its ids.
//!
//! Invariant: after any sequence of calls, in whatever parts, a tally holds each prediction's last outcome once. Each
//! item ends in exactly one field of the answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use outhaul_state::{
    EarlyRow, KnownOutcomes, KnownPrediction, OutcomeChanges, OutcomeRow, TallyRow,
};
use outhaul_types::{Feedback, FeedbackAnswer, Outcome};

use super::label::agree;

/// Decides what `items`, told at `now`, change. The last outcome of a prediction counts; it is compared with the one
/// before it, whether that came in an earlier call or earlier in this one.
pub(super) fn join(
    items: &[Feedback],
    known: &KnownOutcomes,
    now: i64,
) -> (OutcomeChanges, FeedbackAnswer) {
    let mut predictions: HashMap<&str, Vec<&KnownPrediction>> = HashMap::new();
    for prediction in &known.predictions {
        predictions.entry(&prediction.id).or_default().push(prediction);
    }
    let known = known.outcomes.iter().map(|row| ((&*row.id, &*row.route), row.clone()));
    let mut books = Books { outcomes: known.collect(), ..Books::default() };
    let mut answer = FeedbackAnswer::default();
    for item in items {
        let of_route = |prediction: &&&KnownPrediction| {
            item.route.as_ref().is_none_or(|route| prediction.route == route.as_str())
        };
        let named = predictions.get(&*item.id).map_or(&[][..], Vec::as_slice);
        let met: Vec<_> = named.iter().filter(of_route).collect();
        if met.is_empty() {
            books.keep(item, now);
        }
        let found = met.into_iter().filter_map(|prediction| {
            books.settle(prediction);
            let (label, reward) = weigh(&item.outcome, prediction.predicted.as_deref())?;
            let (route, variant) = (prediction.route.clone(), prediction.variant.clone());
            let id = prediction.id.clone();
            let row = OutcomeRow { id, route, variant, label, reward, at: now };
            Some(books.count((&prediction.id, &prediction.route), row))
        });
        match found.max() {
            Some(Found::New) => answer.joined += 1,
            Some(Found::Different) => answer.replaced += 1,
            Some(Found::Same) => answer.duplicate.push(item.id.clone()),
            None => answer.unknown.push(item.id.clone()),
        }
    }
    (books.into_changes(), answer)
}

/// Returns an outcome's label and reward; none where a label has nothing to be compared with.
fn weigh(outcome: &Outcome, predicted: Option<&str>) -> Option<(Option<String>, f64)> {
    match outcome {
        Outcome::Reward(reward) => Some((None, *reward)),
        Outcome::Label(told) => {
            let right = agree(predicted?, told);
            Some((Some(told.to_string()), f64::from(u8::from(right))))
        }
    }
}

/// What an outcome is to the one before it, the weightiest last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    Same,
    Different,
    New,
}

/// Outcomes by id and route as they become, and what has changed.
#[derive(Default)]
struct Books<'k> {
    outcomes: HashMap<(&'k str, &'k str), OutcomeRow>,
    changed: BTreeMap<(String, String), OutcomeRow>,
    tallies: BTreeMap<(String, String), TallyRow>,
    early: BTreeMap<(String, String), EarlyRow>,
    settled: BTreeSet<(String, String)>,
}

impl<'k> Books<'k> {
    fn count(&mut self, key: (&'k str, &'k str), row: OutcomeRow) -> Found {
        let found = match self.outcomes.get(&key) {
            None => Found::New,
            Some(before) if before.label == row.label && before.reward == row.reward => {
                return Found::Same;
            }
            Some(before) => {
                let before = before.clone();
                self.tally(&before, -1);
                Found::Different
            }
        };
        self.tally(&row, 1);
        self.changed.insert((key.0.to_owned(), key.1.to_owned()), row.clone());
        self.outcomes.insert(key, row);
        found
    }

    fn tally(&mut self, row: &OutcomeRow, times: i8) {
        let key = (row.route.clone(), row.variant.clone());
        let tally = self.tallies.entry(key).or_insert_with(|| TallyRow {
            route: row.route.clone(),
            variant: row.variant.clone(),
            ..TallyRow::default()
        });
        tally.outcomes += i64::from(times);
        tally.reward_sum += f64::from(times) * row.reward;
        tally.square_sum += f64::from(times) * row.reward * row.reward;
    }

    /// Lets go of outcomes that came early: the one at hand is newer, or is that one.
    fn settle(&mut self, prediction: &KnownPrediction) {
        for route in ["", &prediction.route] {
            self.settled.insert((prediction.id.clone(), route.to_owned()));
        }
    }

    /// Keeps an outcome whose prediction may still come.
    fn keep(&mut self, item: &Feedback, at: i64) {
        let (label, reward) = match &item.outcome {
            Outcome::Reward(reward) => (None, Some(*reward)),
            Outcome::Label(label) => (Some(label.to_string()), None),
        };
        let route = item.route.as_ref().map_or_else(String::new, ToString::to_string);
        let id = item.id.to_string();
        let row = EarlyRow { id: id.clone(), route: route.clone(), label, reward, at };
        self.early.insert((id, route), row);
    }

    fn into_changes(self) -> OutcomeChanges {
        OutcomeChanges {
            outcomes: self.changed.into_values().collect(),
            tallies: self.tallies.into_values().collect(),
            early: self.early.into_values().collect(),
            settled: self.settled.into_iter().collect(),
        }
    }
}

/// Returns an early outcome as the feedback that it was.
pub(super) fn feedback_of(row: &EarlyRow) -> Option<Feedback> {
    let route = match row.route.as_str() {
        "" => None,
        route => Some(outhaul_types::ModelName::new(route).ok()?),
    };
    let outcome = match (&row.label, row.reward) {
        (Some(label), _) => Outcome::Label(label.as_str().into()),
        (None, reward) => Outcome::Reward(reward?),
    };
    Some(Feedback { id: row.id.as_str().into(), route, outcome })
}

#[cfg(test)]
mod tests {
    use outhaul_types::ModelName;

    use super::*;

    fn prediction(id: &str, route: &str, predicted: Option<&str>) -> KnownPrediction {
        KnownPrediction {
            id: id.to_owned(),
            route: route.to_owned(),
            variant: format!("{route}@2"),
            predicted: predicted.map(str::to_owned),
        }
    }

    fn reward(id: &str, reward: f64) -> Feedback {
        Feedback { id: id.into(), route: None, outcome: Outcome::Reward(reward) }
    }

    fn label(id: &str, label: &str) -> Feedback {
        Feedback { id: id.into(), route: None, outcome: Outcome::Label(label.into()) }
    }

    fn on(route: &str, item: Feedback) -> Feedback {
        Feedback { route: ModelName::new(route).ok(), ..item }
    }

    #[test]
    fn each_item_ends_in_one_place() {
        struct Case {
            items: Vec<Feedback>,
            expected: &'static str,
            tallies: Vec<(&'static str, i64, f64)>,
            early: usize,
            what: &'static str,
        }
        let known = KnownOutcomes {
            predictions: vec![
                prediction("a", "r", Some("positive")),
                prediction("b", "r", None),
                prediction("b", "q", Some("1")),
                prediction("c", "r", Some("negative")),
            ],
            outcomes: vec![OutcomeRow {
                id: "c".to_owned(),
                route: "r".to_owned(),
                variant: "r@1".to_owned(),
                label: None,
                reward: 0.25,
                at: 0,
            }],
        };
        let cases = [
            Case {
                items: vec![reward("a", 0.5)],
                expected: "1 0 [] []",
                tallies: vec![("r@2", 1, 0.5)],
                early: 0,
                what: "a reward",
            },
            Case {
                items: vec![label("a", "positive"), label("c", "positive")],
                expected: "1 1 [] []",
                tallies: vec![("r@1", -1, -0.25), ("r@2", 2, 1.0)],
                early: 0,
                what: "labels; one takes a reward's place, which counted for another variant",
            },
            Case {
                items: vec![reward("c", 0.25)],
                expected: "0 0 [\"c\"] []",
                tallies: vec![],
                early: 0,
                what: "the same again",
            },
            Case {
                items: vec![reward("a", 1.0), reward("a", 0.0), reward("a", 0.0)],
                expected: "1 1 [\"a\"] []",
                tallies: vec![("r@2", 1, 0.0)],
                early: 0,
                what: "one prediction three times in a call: the last counts",
            },
            Case {
                items: vec![reward("x", 1.0), on("q", reward("a", 1.0)), reward("x", 0.5)],
                expected: "0 0 [] [\"x\", \"a\", \"x\"]",
                tallies: vec![],
                early: 2,
                what: "unknown ids, and a known one of another route, are kept for later",
            },
            Case {
                items: vec![reward("b", 1.0)],
                expected: "1 0 [] []",
                tallies: vec![("q@2", 1, 1.0), ("r@2", 1, 1.0)],
                early: 0,
                what: "without a route, every route of the request is meant",
            },
            Case {
                items: vec![label("b", "1.0")],
                expected: "1 0 [] []",
                tallies: vec![("q@2", 1, 1.0)],
                early: 0,
                what: "a label where one of the routes has nothing to compare it with",
            },
            Case {
                items: vec![on("r", label("b", "1"))],
                expected: "0 0 [] [\"b\"]",
                tallies: vec![],
                early: 0,
                what: "a label where nothing can be compared is unknown, and not worth keeping",
            },
        ];
        for Case { items, expected, tallies, early, what } in cases {
            let (changes, answer) = join(&items, &known, 9);
            let FeedbackAnswer { joined, replaced, duplicate, unknown } = &answer;
            assert_eq!(
                format!("{joined} {replaced} {duplicate:?} {unknown:?}"),
                expected,
                "{what}"
            );
            let counted = joined + replaced + (duplicate.len() + unknown.len()) as u64;
            assert_eq!(counted, items.len() as u64, "{what}");
            let found =
                changes.tallies.iter().map(|row| (&*row.variant, row.outcomes, row.reward_sum));
            assert_eq!(found.collect::<Vec<_>>(), tallies, "{what}");
            assert_eq!(changes.early.len(), early, "{what}");
            let again: Vec<_> = changes.early.iter().filter_map(feedback_of).collect();
            assert!(again.iter().all(|item| items.contains(item)), "{what}: {again:?}");
        }
    }
}
