//! The command line: `tidings serve`, `publish`, `subscribe`, `config`, `log new-epoch`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
