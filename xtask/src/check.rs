//! placeholder
use clap::Args;
use crate::Failure;
/// x
#[derive(Args, Debug)]
pub struct Arguments {}
/// x
pub fn run(_: &Arguments) -> Result<(), Failure> { Ok(()) }
