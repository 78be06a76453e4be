//! One session of the library, run from many threads at once, and the threads that it makes itself.
//!
//! One test in a file of its own: it counts the threads of the process.

mod library;

use std::sync::Barrier;
use std::thread;

use outhaul_engine::testsuite::read_references;
use outhaul_engine::{Engine, LoadOptions, Session};
use outhaul_types::{BoundInputs, Tensors};

const THREADS: usize = 8;
const RUNS: usize = 2000;
/// Of every kind: linear, convolution, trees, strings, integers, control flow.
const MODELS: [&str; 6] = ["iris", "digits", "breast_cancer", "iris_words", "int8_mlp", "loop_if"];

#[test]
fn one_session_answers_many_threads_as_it_answers_one() {
    let threads_before = thread_count();
    let runtime = library::open();
    assert_eq!(thread_count(), threads_before, "telemetry would have a thread");
    let testdata = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
    let references = read_references(&testdata).unwrap();

    let mut loaded = Vec::new();
    let mut jobs: Vec<(usize, BoundInputs, Tensors)> = Vec::new();
    for name in MODELS {
        let reference = references.iter().find(|reference| reference.name == name).unwrap();
        let model = outhaul_onnx::read(&reference.path).unwrap();
        let engine_model = runtime.load(&model, &LoadOptions::default()).unwrap();
        let mut session = engine_model.session().unwrap();
        for case in &reference.cases {
            let bound = model.signature.bind(case.inputs.iter().cloned()).unwrap();
            let alone = session.run(&bound).unwrap();
            jobs.push((loaded.len(), bound, alone));
        }
        loaded.push(engine_model);
    }
    assert_eq!(thread_count(), threads_before, "a model with one thread must make none");

    let start = Barrier::new(THREADS);
    let work = |thread: usize, mut sessions: Vec<Box<dyn Session>>| {
        start.wait();
        for run in 0..RUNS {
            // Each thread begins elsewhere, so that equal and different models meet.
            for index in 0..jobs.len() {
                let (model, bound, alone) = &jobs[(index + thread) % jobs.len()];
                let together = sessions[*model].run(bound).unwrap();
                assert!(together == *alone, "thread {thread} run {run}: {}", MODELS[*model]);
            }
        }
    };
    thread::scope(|scope| {
        let spawn = |thread| {
            let sessions = loaded.iter().map(|model| model.session().unwrap()).collect();
            let work = &work;
            scope.spawn(move || work(thread, sessions))
        };
        let workers: Vec<_> = (0..THREADS).map(spawn).collect();
        // Joined one by one: the scope's own end may come before the threads are gone.
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
    assert_eq!(thread_count(), threads_before, "runs must make no threads");

    let options = LoadOptions { threads: 3.try_into().unwrap(), ..LoadOptions::default() };
    let model = library::read("examples/models/digits/1/model.onnx");
    let pooled = runtime.load(&model, &options).unwrap();
    if cfg!(target_os = "linux") {
        assert_eq!(thread_count(), threads_before + 2, "a pool of three is the caller and two");
    }
    drop(pooled);
}

/// Returns the number of threads of this process, or 0 where the system does not say.
fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}
