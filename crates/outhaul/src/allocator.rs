//! The binary's allocator, and how much each thread has allocated in it.
//!
//! jemalloc returns what unloading a model frees; the system's allocator kept hundreds of MiB. It also
//! serves ONNX Runtime, whose `malloc` resolves to this program's. Its settings are compiled in, from
//! `.cargo/config.toml`; `MALLOC_CONF` in the environment overrides them. What was measured:
//! `docs/decisions/006-memory-measured-and-returned.md`.

use outhaul::MemoryMeter;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Returns the meter for what models hold in this process.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn memory_meter() -> MemoryMeter {
    use tikv_jemalloc_ctl::thread::{allocatedp, deallocatedp};

    fn bytes() -> Result<i64, tikv_jemalloc_ctl::Error> {
        let (allocated, freed) = (allocatedp::read()?.get(), deallocatedp::read()?.get());
        Ok(allocated.wrapping_sub(freed) as i64)
    }

    match bytes() {
        Ok(_) => MemoryMeter::by_thread(|| bytes().unwrap_or(0)),
        Err(_) => MemoryMeter::by_process(),
    }
}

/// Returns the meter for what models hold in this process.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn memory_meter() -> MemoryMeter {
    MemoryMeter::by_process()
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    #[test]
    fn the_allocator_has_our_settings() {
        let compiled_in = tikv_jemalloc_ctl::config::malloc_conf::read().unwrap();
        assert!(compiled_in.contains("background_thread:true"), "{compiled_in}");
        assert!(compiled_in.contains("dirty_decay_ms:1000"), "{compiled_in}");
    }

    #[test]
    fn what_a_thread_allocates_and_frees_is_counted() {
        let before = thread_bytes();
        let buffer = vec![1_u8; 1 << 20];
        assert!(thread_bytes() - before >= 1 << 20);
        drop(buffer);
        assert_eq!(thread_bytes(), before);
    }

    fn thread_bytes() -> i64 {
        use tikv_jemalloc_ctl::thread::{allocatedp, deallocatedp};
        let (allocated, freed) =
            (allocatedp::read().expect("counted"), deallocatedp::read().expect("counted"));
        allocated.get().wrapping_sub(freed.get()) as i64
    }
}
