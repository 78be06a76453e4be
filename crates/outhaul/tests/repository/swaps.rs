//! Versions that are replaced under load, through the library: no request fails, and each is answered
//! by exactly the version that the answer names.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use outhaul::types::{InferRequest, NamedTensor, RequestContext, Tensor};
use outhaul::{Mode, OpenOptions, RepositoryConfig, Router};
use tokio::runtime::Builder;

use crate::server::{Folder, Stop, until};

const CALLERS: usize = 4;
const SWAPS: u16 = 20;

fn open(models: &Path) -> Arc<Router> {
    let repository = RepositoryConfig {
        mode: Mode::Watch,
        settle: Duration::ZERO,
        ..RepositoryConfig::default()
    };
    let options = OpenOptions { repository, ..OpenOptions::path(models) };
    outhaul::open(&options).unwrap().router
}

/// Asks without a pause until it is told to stop, on an event loop of its own. Returns how often.
fn call(router: &Router, stop: &Stop, newest: &AtomicU64) -> usize {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let tensor = Tensor::from_vec([1, 2], vec![0_f32; 2]).unwrap();
    let (context, mut answers, mut last) = (RequestContext::default(), 0, 0);
    while !stop.is_told() {
        let input = NamedTensor { name: "x".into(), tensor: tensor.clone() };
        let answer =
            runtime.block_on(router.infer(InferRequest::new("swapped", [input]), &context));
        let answer = answer.unwrap_or_else(|error| panic!("request {answers}: {error}"));
        let values = answer.output("y").unwrap().as_slice::<f32>().unwrap();
        assert_eq!(values[0], values[1], "half a model was loaded");
        // Versions have their number for a mark.
        assert_eq!(values[0] as u64, answer.version.0, "another version than it says");
        assert!(answer.version.0 >= last, "it went back from {last} to {}", answer.version);
        last = answer.version.0;
        newest.fetch_max(last, Ordering::Relaxed);
        answers += 1;
    }
    answers
}

#[test]
fn no_request_fails_while_versions_are_replaced() {
    let folder = Folder::new();
    folder.put_marked("swapped", 1, 1);
    let router = open(&folder.path("models"));
    let (stop, newest) = (Stop::default(), AtomicU64::new(0));
    let answers: Vec<usize> = thread::scope(|scope| {
        let callers = [(); CALLERS].map(|()| scope.spawn(|| call(&router, &stop, &newest)));
        let stopping = stop.at_end();
        for version in 2..=SWAPS + 1 {
            folder.put_marked("swapped", version.into(), version);
            until("the new version answers", || {
                // A caller that failed is told by its own panic, not by patience running out.
                newest.load(Ordering::Relaxed) >= version.into()
                    || callers.iter().any(|caller| caller.is_finished())
            });
        }
        drop(stopping);
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    println!("{answers:?} answers over {SWAPS} swaps");
    until("only the newest is in memory", || {
        let versions = router.models();
        let mut ready = versions.iter().filter(|version| version.ready.is_some());
        ready.next().is_some_and(|first| first.version.0 == u64::from(SWAPS + 1))
            && ready.next().is_none()
    });
}
