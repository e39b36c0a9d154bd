//! x
use clap::Args;
use std::{io, path::PathBuf};
#[derive(Args)] pub struct Best { file: PathBuf }
impl Best { pub fn print(self) -> io::Result<()> { Ok(()) } }
#[derive(Args)] pub struct Level { #[arg(long)] id: u32 }
impl Level { pub fn look(self) -> io::Result<()> { Ok(()) } }
#[derive(Args)] pub struct Report { file: PathBuf }
impl Report { pub fn write(self) -> io::Result<()> { Ok(()) } }
