//! The command line: `tidings serve`, `publish`, `subscribe`, `config`, `log new-epoch`.

mod cli;

/// A publish is a few dozen small allocations, made on one thread and freed on another; a stream is three that last. Both
/// cost less here than with the system's allocator: docs/performance.md has the figures.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
