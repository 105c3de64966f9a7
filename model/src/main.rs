//! Explores scenes by name or by size (`ci`, `full`, `soak`): `esker-model [STATES] SCENE…`, with so many states
//! of each at most. Fails when a claim does not hold, and says how that came about.

use std::process::ExitCode;
use std::time::Instant;

use esker_model::{claims, explore, scenes};

fn main() -> ExitCode {
    let mut states_max = usize::MAX;
    let mut outcome = ExitCode::SUCCESS;
    for arg in std::env::args().skip(1) {
        if let Ok(number) = arg.parse() {
            states_max = number;
            continue;
        }
        let asked = |name: &str, size| name == arg || format!("{size:?}").to_lowercase() == arg;
        let scenes: Vec<_> = scenes::all().into_iter().filter(|(name, size, _)| asked(name, *size)).collect();
        if scenes.is_empty() {
            eprintln!("there is no scene `{arg}`");
            return ExitCode::FAILURE;
        }
        for (name, _, scene) in scenes {
            let began = Instant::now();
            let report = explore::explore(&scene, states_max);
            let all = if report.complete { "all there are" } else { "and more there are" };
            let seconds = began.elapsed().as_secs_f64();
            println!("{name}: {} states, {all}, to depth {}, {seconds:.1} s", report.states, report.depth);
            let never: Vec<_> = (0..claims::MARKS.len()).filter(|&mark| !report.marks.has(mark)).collect();
            never.iter().for_each(|&mark| println!("  never: {}", claims::MARKS[mark]));
            if let Some((claim, way)) = report.broken {
                println!("  {claim}:");
                way.iter().for_each(|action| println!("    {action}"));
                outcome = ExitCode::FAILURE;
            }
        }
    }
    outcome
}
