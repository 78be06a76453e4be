use std::sync::Arc;

use outhaul_types::{Interface, ModelSignature, Name};
use proptest::prelude::*;

use super::*;
use crate::plan::{Feed, PlannedStep};
use crate::{Outline, PipelineSpec};

/// A step for tests: what feeds it, whether it has a condition and on what, whether it is eager.
#[derive(Clone, Debug, Default)]
struct Draft {
    feeds: Vec<(Vec<Slot>, bool)>,
    looks_at: Option<Vec<Slot>>,
    eager: bool,
}

fn plan(drafts: &[Draft], outputs: Vec<Vec<Slot>>) -> Plan {
    let step = |(index, draft): (usize, &Draft)| PlannedStep {
        name: Name::from(format!("s{index}")),
        model: "m".parse().unwrap(),
        feeds: draft
            .feeds
            .iter()
            .map(|(from, optional)| Feed {
                input: "x".into(),
                from: from.clone(),
                optional: *optional,
            })
            .collect(),
        asks: vec![("o".into(), None)],
        looks_at: draft.looks_at.clone().unwrap_or_default(),
        is_conditional: draft.looks_at.is_some(),
        eager: draft.eager,
    };
    let outline = Outline {
        spec: PipelineSpec::default(),
        inputs: vec!["x".into()],
        conditions: Vec::new(),
        order: (0..drafts.len()).collect(),
    };
    Plan {
        outline: Arc::new(outline),
        signature: ModelSignature::default(),
        interface: Interface::default(),
        steps: drafts.iter().enumerate().map(step).collect(),
        outputs,
    }
}

fn of(step: usize) -> Slot {
    Slot::Output { step, output: 0 }
}

const X: Slot = Slot::Input(0);

fn fed(from: &[Slot]) -> Draft {
    Draft { feeds: vec![(from.to_vec(), false)], ..Draft::default() }
}

fn when(draft: Draft, looks_at: &[Slot]) -> Draft {
    Draft { looks_at: Some(looks_at.to_vec()), ..draft }
}

fn eager(draft: Draft) -> Draft {
    Draft { eager: true, ..draft }
}

use Action::{Decide, GiveUp, Start};

#[test]
fn what_is_done_when() {
    enum Then {
        Next(&'static [Action]),
        Decided(usize, bool),
        Answered(usize),
        Failed(usize),
        Over(Option<Outcome>),
    }
    use Then::{Answered, Decided, Failed, Next, Over};
    struct Case {
        name: &'static str,
        steps: Vec<Draft>,
        outputs: Vec<Vec<Slot>>,
        story: Vec<Then>,
    }
    let answered = |slots: &[Slot]| Over(Some(Outcome::Answered(slots.to_vec())));
    let cascade = || vec![fed(&[X]), when(fed(&[X]), &[of(0)])];
    // 1 only feeds 2, which runs on a condition that 0 decides.
    let fed_late = |embed: fn(Draft) -> Draft| {
        vec![fed(&[X]), embed(fed(&[X])), when(fed(&[of(1)]), &[of(0)])]
    };
    let same: fn(Draft) -> Draft = |draft| draft;
    let cases = [
        Case {
            name: "a small model that is sure of itself",
            steps: cascade(),
            outputs: vec![vec![of(1), of(0)]],
            story: vec![
                Next(&[Start(0)]),
                Next(&[]),
                Answered(0),
                Next(&[Decide(1)]),
                Decided(1, false),
                Next(&[]),
                answered(&[of(0)]),
            ],
        },
        Case {
            name: "a small model that is not",
            steps: cascade(),
            outputs: vec![vec![of(1), of(0)]],
            story: vec![
                Next(&[Start(0)]),
                Answered(0),
                Next(&[Decide(1)]),
                Decided(1, true),
                Next(&[Start(1)]),
                Over(None),
                Answered(1),
                answered(&[of(1)]),
            ],
        },
        Case {
            name: "fan out and join",
            steps: vec![
                fed(&[X]),
                fed(&[of(0)]),
                fed(&[of(0)]),
                Draft {
                    feeds: vec![(vec![of(1)], false), (vec![of(2)], false)],
                    ..Draft::default()
                },
            ],
            outputs: vec![vec![of(3)]],
            story: vec![
                Next(&[Start(0)]),
                Answered(0),
                Next(&[Start(1), Start(2)]),
                Answered(2),
                Next(&[]),
                Answered(1),
                Next(&[Start(3)]),
                Answered(3),
                answered(&[of(3)]),
            ],
        },
        Case {
            name: "what feeds a step with a condition waits for it",
            steps: fed_late(same),
            outputs: vec![vec![of(2), of(0)]],
            story: vec![
                Next(&[Start(0)]),
                Answered(0),
                Next(&[Decide(2)]),
                Decided(2, true),
                Next(&[Start(1)]),
                Answered(1),
                Next(&[Start(2)]),
            ],
        },
        Case {
            name: "an eager step does not wait, and is given up",
            steps: fed_late(eager),
            outputs: vec![vec![of(2), of(0)]],
            story: vec![
                Next(&[Start(0), Start(1)]),
                Answered(0),
                Next(&[Decide(2)]),
                Decided(2, false),
                Next(&[GiveUp(1)]),
                answered(&[of(0)]),
            ],
        },
        Case {
            name: "an eager step that fails and is not needed fails nothing",
            steps: fed_late(eager),
            outputs: vec![vec![of(2), of(0)]],
            story: vec![
                Next(&[Start(0), Start(1)]),
                Failed(1),
                Over(None),
                Answered(0),
                Next(&[Decide(2)]),
                Decided(2, false),
                Next(&[]),
                answered(&[of(0)]),
            ],
        },
        Case {
            name: "an eager step that fails and is needed after all",
            steps: fed_late(eager),
            outputs: vec![vec![of(2), of(0)]],
            story: vec![
                Next(&[Start(0), Start(1)]),
                Failed(1),
                Answered(0),
                Next(&[Decide(2)]),
                Decided(2, true),
                Next(&[]),
                Over(Some(Outcome::Failed(1))),
            ],
        },
        Case {
            name: "the next of several runs once the one before is missing",
            steps: vec![when(fed(&[X]), &[X]), fed(&[X])],
            outputs: vec![vec![of(0), of(1)]],
            story: vec![Next(&[Decide(0)]), Decided(0, false), Next(&[Start(1)])],
        },
        Case {
            name: "and not at all where it is there",
            steps: vec![when(fed(&[X]), &[X]), fed(&[X])],
            outputs: vec![vec![of(0), of(1)]],
            story: vec![
                Next(&[Decide(0)]),
                Decided(0, true),
                Next(&[Start(0)]),
                Answered(0),
                Next(&[]),
                answered(&[of(0)]),
            ],
        },
        Case {
            name: "missing goes on through all that needs it",
            steps: vec![when(fed(&[X]), &[X]), fed(&[of(0)]), fed(&[of(1)])],
            outputs: vec![vec![of(2), X]],
            story: vec![Next(&[Decide(0)]), Decided(0, false), Next(&[]), answered(&[X])],
        },
        Case {
            name: "an optional input that is missing is left out",
            steps: vec![
                when(fed(&[X]), &[X]),
                Draft { feeds: vec![(vec![of(0)], true), (vec![X], false)], ..Draft::default() },
            ],
            outputs: vec![vec![of(1)]],
            story: vec![Next(&[Decide(0)]), Decided(0, false), Next(&[Start(1)])],
        },
        Case {
            name: "a step that nobody wants never runs",
            steps: vec![fed(&[X]), fed(&[X])],
            outputs: vec![vec![of(1)]],
            story: vec![Next(&[Start(1)]), Answered(1), Next(&[]), answered(&[of(1)])],
        },
        Case {
            name: "a condition that fails ends the request",
            steps: vec![when(fed(&[X]), &[X])],
            outputs: vec![vec![of(0), X]],
            story: vec![Next(&[Decide(0)]), Failed(0), Over(Some(Outcome::Failed(0)))],
        },
    ];
    for Case { name, steps, outputs, story } in cases {
        let wanted = (0..outputs.len()).collect();
        let plan = plan(&steps, outputs);
        let mut run = plan.begin(vec![true], wanted);
        for (line, then) in story.into_iter().enumerate() {
            match then {
                Next(expected) => assert_eq!(run.advance(), expected, "{name}, {line}"),
                Decided(step, holds) => run.decided(step, holds),
                Answered(step) => run.answered(step),
                Failed(step) => run.failed(step),
                Over(expected) => assert_eq!(run.outcome(), expected, "{name}, {line}"),
            }
        }
    }
}

#[test]
fn only_what_is_wanted_runs() {
    let plan = plan(&[fed(&[X]), fed(&[X])], vec![vec![of(0)], vec![of(1)]]);
    let mut run = plan.begin(vec![true], vec![1]);
    assert_eq!(run.advance(), [Start(1)]);
}

/// Pipelines of up to eight steps, each looking at steps before it.
fn drafts() -> impl Strategy<Value = Vec<Draft>> {
    let seeds = prop::collection::vec(any::<u64>(), 1..=8);
    seeds.prop_map(|seeds| {
        let step = |(index, seed): (usize, &u64)| {
            let mut bits = Bits(*seed);
            let slot = |bits: &mut Bits| match bits.below(index + 1) {
                0 => X,
                step => of(step - 1),
            };
            let feed = |bits: &mut Bits| {
                let from = (0..=bits.below(3)).map(|_| slot(bits)).collect();
                (from, bits.below(4) == 0)
            };
            let feeds = (0..bits.below(3)).map(|_| feed(&mut bits)).collect();
            let looks_at =
                (bits.below(2) == 0).then(|| (0..bits.below(3)).map(|_| slot(&mut bits)).collect());
            Draft { feeds, looks_at, eager: bits.below(3) == 0 }
        };
        seeds.iter().enumerate().map(step).collect()
    })
}

/// Choices out of one number (an xorshift generator).
struct Bits(u64);

impl Bits {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.max(1);
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Whether each step runs, worked out from the front to the back.
fn runs(drafts: &[Draft], holds: &[bool]) -> Vec<bool> {
    let mut runs: Vec<bool> = Vec::new();
    for (index, draft) in drafts.iter().enumerate() {
        let there = |slot: &Slot| match slot {
            Slot::Input(_) => true,
            Slot::Output { step, .. } => runs[*step],
        };
        let is_fed = draft.feeds.iter().all(|(from, optional)| *optional || from.iter().any(there));
        runs.push(is_fed && (draft.looks_at.is_none() || holds[index]));
    }
    runs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_request_ends_with_what_the_rules_say(
        drafts in drafts(),
        seed in any::<u64>(),
        failing in prop::option::of(0_usize..8),
    ) {
        let mut bits = Bits(seed);
        let holds: Vec<bool> = drafts.iter().map(|_| bits.below(2) == 0).collect();
        let expected = runs(&drafts, &holds);
        // The last of each output's tensors is always there.
        let output = |bits: &mut Bits| -> Vec<Slot> {
            let steps = (0..bits.below(3)).map(|_| of(bits.below(drafts.len())));
            steps.chain([X]).collect()
        };
        let outputs: Vec<_> = (0..2).map(|_| output(&mut bits)).collect();
        let plan = plan(&drafts, outputs.clone());
        let mut run = plan.begin(vec![true], vec![0, 1]);
        let (mut running, mut started, mut given_up) = (Vec::new(), vec![false; drafts.len()], 0);
        let mut failed = None;
        for _ in 0..100 {
            for action in run.advance() {
                match action {
                    Decide(step) => run.decided(step, holds[step]),
                    Start(step) => {
                        prop_assert!(!std::mem::replace(&mut started[step], true), "twice");
                        prop_assert!(expected[step], "{step} ought not to run");
                        for feed in &plan.steps[step].feeds {
                            let taken = run.take(&feed.from);
                            prop_assert!(feed.optional || taken.is_some(), "not fed");
                        }
                        running.push(step);
                    }
                    GiveUp(step) => {
                        running.retain(|other| *other != step);
                        given_up += 1;
                    }
                }
            }
            if let Some(outcome) = run.outcome() {
                match outcome {
                    Outcome::Answered(taken) => {
                        let there = |slot: &&Slot| match slot {
                            Slot::Input(_) => true,
                            Slot::Output { step, .. } => expected[*step],
                        };
                        let first = |from: &Vec<Slot>| *from.iter().find(there).unwrap();
                        prop_assert_eq!(taken, outputs.iter().map(first).collect::<Vec<_>>());
                    }
                    Outcome::Failed(step) => prop_assert_eq!(Some(step), failed),
                }
                let is_eager = drafts.iter().any(|draft| draft.eager);
                let is_plain = drafts.iter().all(|draft| draft.looks_at.is_none());
                prop_assert!(is_eager || !is_plain || given_up == 0, "given up without a reason");
                return Ok(());
            }
            if running.is_empty() {
                // A condition was decided in this round; the next one goes on from there.
                let waits = run.known.iter().any(|known| matches!(known, Known::Waiting { .. }));
                prop_assert!(waits, "nothing runs, and nothing is left to run");
                continue;
            }
            let ended = running.swap_remove(bits.below(running.len()));
            match failing == Some(ended) {
                true => {
                    failed = Some(ended);
                    run.failed(ended);
                }
                false => run.answered(ended),
            }
        }
        prop_assert!(false, "it never ended");
    }
}
