//! `imgbuild shell`: a root shell in an image's tree, or one command there. What it changes is thrown away.

use anyhow::Result;

use super::{context, recipe};
use crate::cli::{Global, Shell};
use crate::error::Fault;
use crate::pipeline;
use crate::sandbox::{Network, Sandbox};

/// Builds the tree as far as it is not in the store, then enters it.
pub fn run(options: &Shell, global: &Global) -> Result<()> {
    let context = context(global, Some(&options.image), options.appliance.clone())?;
    let recipe = recipe(&options.image, &context)?;
    let tree = pipeline::tree(&recipe, &context)?;
    let sandbox = Sandbox::unpack(tree.tar(), &context)?;
    let network = if options.network { Network::Host } else { Network::None };
    let command: Vec<&str> = if options.command.is_empty() {
        vec!["/bin/bash", "-l"]
    } else {
        options.command.iter().map(String::as_str).collect()
    };
    match sandbox.interactive(&command, network)? {
        0 => Ok(()),
        code => {
            Err(Fault::user(format!("`{}` in the tree ended with exit code {code}", command.join(" ")))
                .into())
        }
    }
}
