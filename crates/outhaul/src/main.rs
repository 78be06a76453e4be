//! The `outhaul` command.

mod allocator;
mod commands;
mod config;

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::main(std::env::args_os())
}
