//! Predictions and outcomes where there is no state store: of this process, and gone with it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use outhaul_state::{
    KnownOutcomes, KnownPrediction, OutcomeChanges, OutcomeRow, PredictionRow, TallyRow,
};

/// Predictions that are remembered at most; beyond, the oldest go first.
const MOST: usize = 200_000;

/// What a store's tables hold, without early outcomes: in one process a prediction is here before its
/// answer is sent.
#[derive(Default)]
pub(super) struct Memory {
    predictions: HashMap<String, Vec<KnownPrediction>>,
    outcomes: HashMap<String, Vec<OutcomeRow>>,
    /// Ids and times, the oldest first.
    ages: VecDeque<(String, i64)>,
    tallies: BTreeMap<(String, String), TallyRow>,
}

impl Memory {
    pub(super) fn add(&mut self, rows: &[PredictionRow]) {
        for row in rows {
            let known = self.predictions.entry(row.id.to_string()).or_default();
            if known.iter().any(|known| known.route == row.route.as_str()) {
                continue;
            }
            let (route, variant) = (row.route.to_string(), row.variant.to_string());
            known.push(KnownPrediction {
                id: row.id.to_string(),
                route: route.clone(),
                variant: variant.clone(),
                predicted: row.predicted.as_ref().map(ToString::to_string),
            });
            self.ages.push_back((row.id.to_string(), row.at));
            self.count(TallyRow { route, variant, predictions: 1, ..TallyRow::default() });
        }
        while self.ages.len() > MOST {
            self.drop_oldest();
        }
    }

    pub(super) fn change<T>(
        &mut self,
        ids: &[&str],
        decide: impl FnOnce(KnownOutcomes) -> (OutcomeChanges, T),
    ) -> T {
        let mut known = KnownOutcomes::default();
        for id in ids.iter().collect::<HashSet<_>>() {
            known.predictions.extend(self.predictions.get(*id).into_iter().flatten().cloned());
            known.outcomes.extend(self.outcomes.get(*id).into_iter().flatten().cloned());
        }
        let (changes, answer) = decide(known);
        for row in changes.outcomes {
            let rows = self.outcomes.entry(row.id.clone()).or_default();
            rows.retain(|other| other.route != row.route);
            rows.push(row);
        }
        changes.tallies.into_iter().for_each(|row| self.count(row));
        answer
    }

    pub(super) fn tallies(&self) -> Vec<TallyRow> {
        self.tallies.values().cloned().collect()
    }

    pub(super) fn trim(&mut self, before: i64) {
        while self.ages.front().is_some_and(|(_, at)| *at < before) {
            self.drop_oldest();
        }
    }

    pub(super) fn forget(&mut self, route: &str) {
        self.tallies.retain(|(other, _), _| other != route);
        self.predictions.values_mut().for_each(|rows| rows.retain(|row| row.route != route));
        self.outcomes.values_mut().for_each(|rows| rows.retain(|row| row.route != route));
        // Their ages stay and go by themselves.
        self.predictions.retain(|_, rows| !rows.is_empty());
        self.outcomes.retain(|_, rows| !rows.is_empty());
    }

    fn drop_oldest(&mut self) {
        if let Some((id, _)) = self.ages.pop_front() {
            self.predictions.remove(&id);
            self.outcomes.remove(&id);
        }
    }

    fn count(&mut self, change: TallyRow) {
        let key = (change.route.clone(), change.variant.clone());
        let tally = self.tallies.entry(key).or_insert_with(|| TallyRow {
            route: change.route.clone(),
            variant: change.variant.clone(),
            ..TallyRow::default()
        });
        tally.predictions += change.predictions;
        tally.outcomes += change.outcomes;
        tally.reward_sum += change.reward_sum;
        tally.square_sum += change.square_sum;
    }
}
