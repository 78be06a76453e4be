use proptest::prelude::*;

use super::*;

struct Case {
    circuit: Circuit,
    now: Instant,
}

impl Case {
    fn new() -> Self {
        let now = Instant::now();
        Case { circuit: Circuit::new(now), now }
    }

    fn pass(&mut self) -> Option<u64> {
        match self.circuit.admit(self.now) {
            Admission::Pass(number) => Some(number),
            Admission::Refused => None,
        }
    }

    fn one(&mut self, fared: Fared) {
        let number = self.pass().expect("it passes");
        self.circuit.ended(number, fared, self.now);
    }

    fn many(&mut self, count: usize, fared: Fared) {
        (0..count).for_each(|_| self.one(fared));
    }

    fn wait(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }
}

#[test]
fn it_opens_when_more_than_half_of_twenty_failed() {
    let mut case = Case::new();
    case.many(9, Fared::Well);
    case.many(10, Fared::Badly);
    assert!(case.circuit.is_closed(), "19 prove nothing");
    case.one(Fared::Well);
    assert!(case.circuit.is_closed(), "half is not more than half");
    case.one(Fared::Badly);
    assert!(!case.circuit.is_closed());
    assert_eq!(case.pass(), None);
}

#[test]
fn what_is_long_ago_or_says_nothing_does_not_count() {
    let mut case = Case::new();
    case.many(15, Fared::Badly);
    case.many(1_000, Fared::Neither);
    assert!(case.circuit.is_closed());
    case.wait(11.0);
    case.many(19, Fared::Badly);
    assert!(case.circuit.is_closed(), "the 15 of before are forgotten");
    case.one(Fared::Badly);
    assert!(!case.circuit.is_closed());
}

#[test]
fn one_probe_at_a_time_decides_and_pauses_double() {
    let mut case = Case::new();
    let late = case.pass().unwrap();
    case.many(20, Fared::Badly);
    for pause in [5.0, 10.0, 20.0, 40.0, 60.0, 60.0] {
        case.wait(pause - 0.001);
        assert_eq!(case.pass(), None, "open for {pause} s");
        case.wait(0.001);
        let probe = case.pass().expect("the probe passes");
        assert_eq!(case.pass(), None, "one probe at a time");
        case.circuit.ended(late, Fared::Well, case.now);
        assert_eq!(case.pass(), None, "what passed before says nothing now");
        case.circuit.ended(probe, Fared::Neither, case.now);
        let next = case.pass().expect("the next one tries");
        case.circuit.ended(next, Fared::Badly, case.now);
        assert_eq!(case.pass(), None, "it did not fare well");
    }
    case.wait(60.0);
    case.one(Fared::Well);
    assert!(case.circuit.is_closed());
    case.many(20, Fared::Badly);
    case.wait(5.0);
    assert!(case.pass().is_some(), "after a good time the pause is short again");
}

#[test]
fn a_probe_that_is_given_up_lets_another_try() {
    let breaker = Arc::new(Breaker::new());
    for _ in 0..20 {
        breaker.pass().unwrap().ended(Fared::Badly);
    }
    assert!(breaker.pass().is_none());
    breaker
        .with(|circuit| circuit.state = State::HalfOpen { is_probed: false, pause: FIRST_PAUSE });
    let probe = breaker.pass().expect("it tries");
    assert!(breaker.pass().is_none());
    drop(probe);
    breaker.pass().expect("another tries").ended(Fared::Well);
    assert!(breaker.is_closed());
}

#[test]
fn a_full_queue_and_a_callers_mistake_say_nothing() {
    let badly: Vec<ErrorKind> = ErrorKind::ALL
        .into_iter()
        .filter(|kind| Fared::of(Err(*kind), A_CHANCE) == Fared::Badly)
        .collect();
    use ErrorKind::{DeadlineExceeded, EngineFailed, Internal, NotFound, NotReady, Unavailable};
    let expected = [NotFound, NotReady, DeadlineExceeded, EngineFailed, Unavailable, Internal];
    assert_eq!(badly, expected);
    assert_eq!(Fared::of(Ok(()), Duration::ZERO), Fared::Well);
}

#[test]
fn breakers_are_found_again() {
    let circuits = Circuits::default();
    let to = |text: &str| text.parse::<Destination>().unwrap();
    let first = circuits.of(&to("a@1"));
    assert!(Arc::ptr_eq(&first, &circuits.of(&to("a@1"))));
    assert!(!Arc::ptr_eq(&first, &circuits.of(&to("a@2"))));
    for number in 1..3 * MANY {
        drop(circuits.of(&to(&format!("b@{number}"))));
    }
    assert!(circuits.0.read().unwrap().len() <= MANY);
    assert!(Arc::ptr_eq(&first, &circuits.of(&to("a@1"))), "one in use is not forgotten");
}

/// A circuit that remembers everything and works its state out anew.
struct Model {
    /// When it ended and whether it failed, since the circuit closed last.
    ended: Vec<(u64, bool)>,
    open: Option<(Duration, Duration)>,
    probe: bool,
}

impl Model {
    fn passes(&self, now: Duration) -> bool {
        self.open.is_none_or(|(until, _)| now >= until && !self.probe)
    }

    fn end(&mut self, fared: Fared, now: Duration) {
        match (self.open, fared) {
            (None, Fared::Neither) => {}
            (None, fared) => {
                self.ended.push((now.as_secs(), fared == Fared::Badly));
                let recent = || {
                    let is_recent = |(at, _): &&(u64, bool)| at + 10 > now.as_secs();
                    self.ended.iter().filter(is_recent)
                };
                let failed = recent().filter(|(_, failed)| *failed).count();
                if recent().count() >= 20 && failed * 2 > recent().count() {
                    let pause = Duration::from_secs(5);
                    self.open = Some((now + pause, pause));
                    self.ended.clear();
                }
            }
            (Some(_), Fared::Well) => (self.open, self.probe) = (None, false),
            (Some((_, pause)), Fared::Badly) => {
                let pause = Duration::from_secs((pause.as_secs() * 2).min(60));
                (self.open, self.probe) = (Some((now + pause, pause)), false);
            }
            (Some(_), Fared::Neither) => self.probe = false,
        }
    }
}

fn outcomes() -> impl Strategy<Value = Vec<(u8, u16, Fared)>> {
    let fared = prop_oneof![
        2 => Just(Fared::Well),
        3 => Just(Fared::Badly),
        1 => Just(Fared::Neither),
    ];
    proptest::collection::vec((any::<u8>(), 0..900_u16, fared), 1..600)
}

proptest! {
    /// Requests come one after the other, some long after their predecessor.
    #[test]
    fn it_does_what_a_simpler_one_does(steps in outcomes()) {
        let origin = Instant::now();
        let mut circuit = Circuit::new(origin);
        let mut model = Model { ended: Vec::new(), open: None, probe: false };
        let mut now = Duration::ZERO;
        for (long, pause, fared) in steps {
            now += Duration::from_millis(u64::from(pause) * if long < 8 { 50 } else { 1 });
            let passes = model.passes(now);
            match circuit.admit(origin + now) {
                Admission::Refused => prop_assert!(!passes, "refused at {now:?}"),
                Admission::Pass(number) => {
                    prop_assert!(passes, "passed at {now:?}");
                    model.probe = model.open.is_some();
                    model.end(fared, now);
                    circuit.ended(number, fared, origin + now);
                }
            }
            prop_assert_eq!(circuit.is_closed(), model.open.is_none());
        }
    }
}
