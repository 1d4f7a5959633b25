//! The C library's heap, set up for a program that moves large pieces between threads.
//!
//! By default glibc keeps a heap for each thread at the size of the largest piece that went through it, and lets pieces of
//! up to 32 MiB stay in them once one was freed: memory would grow with the time that a transfer takes, though what is
//! held does not. Both settings are read from the environment when a process starts and from nowhere else, so the program
//! starts itself once more, in the same process: its number, its arguments and its open files stay.

/// One heap for all threads; what takes 128 KiB or more is given back to the system as it is freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const SETTINGS: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "131072")];

/// Starts the program again with the settings, unless the environment has any of them: then they are as somebody wants
/// them. Where that can't be done the program goes on as it is, which costs memory and nothing else.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn settle() {
    use std::os::unix::process::CommandExt as _;

    if SETTINGS.iter().any(|(name, _)| std::env::var_os(name).is_some()) {
        return;
    }
    let mut arguments = std::env::args_os();
    let Some(name) = arguments.next() else { return };
    let error = std::process::Command::new("/proc/self/exe").arg0(name).args(arguments).envs(SETTINGS).exec();
    tracing::debug!(%error, "the heap stays as it is");
}

/// Other C libraries have other heaps.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn settle() {}
