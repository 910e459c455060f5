//! This process as every Prometheus client tells it, and which build it is.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{Labels, gauges, labels, table};

pub(super) fn register(registry: &mut Registry, program: &str) {
    registry.register_collector(Box::new(Process { program: program.to_owned() }));
}

#[derive(Debug)]
struct Process {
    program: String,
}

/// What `/proc` says of us; nothing where there is none.
struct Proc {
    cpu_secs: f64,
    started_at: f64,
    resident: u64,
    threads: u64,
    files: u64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let build = labels([("version", env!("CARGO_PKG_VERSION")), ("program", &self.program)]);
        gauges(&mut encoder, "cta_repack_build_info", [(build, 1_i64)])?;
        let Some(proc) = read() else { return Ok(()) };
        let name = "process_cpu_seconds_total";
        encoder
            .encode_descriptor(name.trim_end_matches("_total"), table::about(name), None, MetricType::Counter)?
            .encode_counter::<prometheus_client::encoding::NoLabelSet, _, u64>(&proc.cpu_secs, None)?;
        #[expect(clippy::cast_precision_loss, reason = "no process is that large")]
        let number = |value: u64| [(Labels::new(), value as f64)];
        gauges(&mut encoder, "process_start_time_seconds", [(Labels::new(), proc.started_at)])?;
        gauges(&mut encoder, "process_resident_memory_bytes", number(proc.resident))?;
        gauges(&mut encoder, "process_threads", number(proc.threads))?;
        gauges(&mut encoder, "process_open_fds", number(proc.files))
    }
}

fn read() -> Option<Proc> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold spaces and brackets: field 3 and on.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "ticks of a lifetime fit")]
    let secs = |ticks: u64| ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    Some(Proc {
        cpu_secs: secs(field(14)? + field(15)?),
        started_at: boot + secs(field(22)?),
        resident: field(24)? * rustix::param::page_size() as u64,
        threads: field(20)?,
        files: std::fs::read_dir("/proc/self/fd").ok()?.count() as u64,
    })
}
