//! The machine's disk, memory and load.

use crate::check::Check;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::restore::room::free_bytes;
use crate::units::bytes;

pub(super) fn checks(context: &Context) -> Vec<Check> {
    vec![disk(context), memory(context), load(context)]
}

/// That the folder of a target without an engine is there and can be read.
pub(super) fn data_folder(context: &Context) -> Check {
    const NAME: &str = "data folder";
    let Some(folder) = &context.target.data_dir else { return Check::problem(NAME, "data_dir is not set") };
    match std::fs::read_dir(folder) {
        Ok(entries) => Check::good(NAME, format!("{}, {} names", folder.display(), entries.count())),
        Err(e) => Check::problem(NAME, format!("{}: {e}", folder.display())),
    }
}

fn disk(context: &Context) -> Check {
    const NAME: &str = "free disk";
    let Some(folder) = &context.target.data_dir else {
        return Check::not_checked(NAME, "data_dir is not set");
    };
    let least = context.target.checks.min_free_disk_gib << 30;
    match free_bytes(folder) {
        Ok(free) if free >= least => Check::good(NAME, format!("{} at {}", bytes(free), folder.display())),
        Ok(free) => {
            Check::problem(NAME, format!("{} at {}, less than {}", bytes(free), folder.display(), bytes(least)))
        }
        Err(e) => Check::problem(NAME, e.message),
    }
}

fn memory(context: &Context) -> Check {
    const NAME: &str = "free memory";
    let least = context.target.checks.min_free_memory_percent;
    match available_percent() {
        Ok(percent) if percent >= least => Check::good(NAME, format!("{percent} %")),
        Ok(percent) => Check::problem(NAME, format!("{percent} %, less than {least} %")),
        Err(e) => Check::not_checked(NAME, e.message),
    }
}

fn available_percent() -> Result<u64, Failure> {
    let text = read("/proc/meminfo")?;
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    match (field("MemAvailable:"), field("MemTotal:")) {
        (Some(available), Some(total)) if total > 0 => Ok(available * 100 / total),
        _ => Err(odd("/proc/meminfo")),
    }
}

fn load(context: &Context) -> Check {
    const NAME: &str = "load";
    let most = context.target.checks.max_load_per_cpu;
    match load_per_cpu() {
        Ok(load) if load <= most => Check::good(NAME, format!("{load:.2} for each CPU")),
        Ok(load) => Check::problem(NAME, format!("{load:.2} for each CPU, more than {most}")),
        Err(e) => Check::not_checked(NAME, e.message),
    }
}

#[allow(clippy::cast_precision_loss)]
fn load_per_cpu() -> Result<f64, Failure> {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let text = read("/proc/loadavg")?;
    let load: Option<f64> = text.split_whitespace().next().and_then(|l| l.parse().ok());
    load.map(|l| l / cpus as f64).ok_or_else(|| odd("/proc/loadavg"))
}

fn read(path: &str) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| Failure::new(Exit::CouldNotTell, "NotLinux", format!("{path}: {e}")))
}

fn odd(path: &str) -> Failure {
    Failure::new(Exit::CouldNotTell, "NotLinux", format!("{path} is not as on Linux"))
}
