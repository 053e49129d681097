//! Does one step so many times, for `cargo xtask test instructions`, which has the instructions counted, and says how long it took.
//!
//! `domicile-steps STEP TIMES [PRINCIPALS [REGIONS]]`; without arguments, the names of the steps.

mod world;

use world::{STEPS, World};

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, times, rest @ ..] = arguments.as_slice() else {
        STEPS.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    };
    let number = |text: &String| text.parse::<usize>().map_err(|_| format!("{text} is no number"));
    let (_, step) = STEPS.iter().find(|(known, _)| known == name).ok_or_else(|| format!("no step is named {name}"))?;
    let (times, principals, regions) = (number(times)?, rest.first().map_or(Ok(1), number)?, rest.get(1).map_or(Ok(1), number)?);
    let mut world = World::new(principals, regions);
    step(&mut world);
    let began = domicile_tests::process::now();
    for _ in 0..times {
        step(&mut world);
    }
    let took = domicile_tests::process::now() - began;
    println!("{}", took.as_nanos() as f64 / times.max(1) as f64);
    Ok(())
}
