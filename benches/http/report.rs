//! The figures: medians, ratios of paired rounds, the table and the file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::load::Route;

/// All figures of a run.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) rounds: usize,
    pub(crate) requests_a_round: usize,
    pub(crate) connections: usize,
    pub(crate) visitors: usize,
    pub(crate) results: Vec<Figures>,
}

/// One contender on one route.
#[derive(Serialize)]
pub(crate) struct Figures {
    pub(crate) route: &'static str,
    pub(crate) contender: String,
    /// Processor time of the server process in microseconds a request, one a round.
    pub(crate) cpu_us: Vec<f64>,
    /// The same of Redis.
    pub(crate) redis_cpu_us: Vec<f64>,
    /// `None`: there is no other to compare with in this run.
    pub(crate) ratio: Option<Ratio>,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Commands to Redis of one request.
    pub(crate) commands: BTreeMap<String, f64>,
    pub(crate) bytes_to_redis: f64,
    pub(crate) bytes_from_redis: f64,
    #[serde(skip)]
    pub(crate) took: Vec<Duration>,
}

/// Processor time beside another contender's, each round with the same round.
#[derive(Clone, Serialize)]
pub(crate) struct Ratio {
    to: &'static str,
    median: f64,
    lower_quartile: f64,
    upper_quartile: f64,
}

/// What this project wants of itself.
const WANTED: [(&str, Route, f64); 3] =
    [("redis", Route::Untouched, 1.05), ("redis", Route::Read, 1.0), ("redis", Route::Write, 1.0)];

/// What is wanted of this project beside others, and where there is no limit what is to be known.
const AGAINST: [(&str, &str, Route, Option<f64>); 19] = [
    ("cluster", "redis", Route::Read, Some(1.1)),
    ("cluster", "redis", Route::Write, Some(1.1)),
    ("redis", "tower-sliding", Route::Untouched, Some(0.2)),
    ("redis", "tower-sliding", Route::Read, Some(0.7)),
    ("redis", "tower-sliding", Route::Write, Some(0.8)),
    ("redis", "tower-sessions", Route::Untouched, None),
    ("redis", "tower-sessions", Route::Read, None),
    ("redis", "tower-sessions", Route::Write, None),
    ("redis", "axum_session", Route::Untouched, None),
    ("redis", "axum_session", Route::Read, None),
    ("redis", "axum_session", Route::Write, None),
    ("redis", "actix-session", Route::Untouched, None),
    ("redis", "actix-session", Route::Read, None),
    ("redis", "actix-session", Route::Write, None),
    ("bridge", "tower-sliding", Route::Read, Some(0.8)),
    ("bridge", "tower-sliding", Route::Write, Some(0.8)),
    ("bridge", "tower-sessions", Route::Read, Some(0.8)),
    ("bridge", "tower-sessions", Route::Write, Some(0.8)),
    ("bridge", "tower-sessions", Route::Untouched, None),
];

/// What a login costs the requests that come after it: each of these beside the same without one.
const BESIDE: [(&str, &str, Route); 2] = [("user", "redis", Route::Read), ("user", "redis", Route::Write)];

fn base(route: Route) -> &'static str {
    match route {
        Route::Untouched => "bare",
        Route::Read | Route::Write => "floor",
    }
}

impl Figures {
    pub(crate) fn new(route: Route, contender: &str) -> Self {
        Self {
            route: route.name(),
            contender: contender.to_owned(),
            cpu_us: Vec::new(),
            redis_cpu_us: Vec::new(),
            ratio: None,
            p50_us: 0.0,
            p99_us: 0.0,
            commands: BTreeMap::new(),
            bytes_to_redis: 0.0,
            bytes_from_redis: 0.0,
            took: Vec::new(),
        }
    }
}

impl Report {
    /// Makes what needs all rounds.
    pub(crate) fn finish(&mut self) {
        for figures in &mut self.results {
            let mut took: Vec<f64> = figures.took.iter().map(|took| took.as_secs_f64() * 1e6).collect();
            took.sort_by(f64::total_cmp);
            figures.p50_us = quantile(&took, 0.5);
            figures.p99_us = quantile(&took, 0.99);
        }
        for route in Route::ALL {
            let Some(base_us) = self.find(base(route), route).map(|figures| figures.cpu_us.clone()) else { continue };
            for figures in self.results.iter_mut().filter(|figures| figures.route == route.name()) {
                figures.ratio = Some(Ratio::of(&figures.cpu_us, &base_us, base(route)));
            }
        }
    }

    fn find(&self, contender: &str, route: Route) -> Option<&Figures> {
        self.results.iter().find(|figures| figures.contender == contender && figures.route == route.name())
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{} rounds of {} requests on {} connections, {} visitors. CPU: microseconds of the server process a request; \
             medians, with the middle half of the rounds.\n",
            self.rounds, self.requests_a_round, self.connections, self.visitors
        );
        for route in Route::ALL {
            let mut of_route = self.results.iter().filter(|figures| figures.route == route.name()).peekable();
            if of_route.peek().is_none() {
                continue;
            }
            let ratio = format!("ratio to {}", base(route));
            let head = [route.name(), "CPU us", &ratio, "Redis CPU us", "p50 us", "p99 us", "bytes to, from Redis"];
            let _ = writeln!(text, "\n{}  commands", row(head));
            of_route.for_each(|figures| {
                let _ = writeln!(text, "{}", line(figures));
            });
        }
        text
    }

    /// What is wanted, and whether it is so.
    pub(crate) fn verdicts(&self) -> String {
        let mut text = String::new();
        for (contender, route, limit) in WANTED {
            let Some(ratio) = self.find(contender, route).and_then(|figures| figures.ratio.as_ref()) else { continue };
            let verdict = ratio.verdict(limit);
            let Ratio { to, median, lower_quartile, upper_quartile } = ratio;
            let _ = writeln!(
                text,
                "{contender}, {}: at most {limit:.2} of {to}: {verdict} ({median:.3}, {lower_quartile:.3} to {upper_quartile:.3})",
                route.name()
            );
        }
        for (contender, other, route, limit) in AGAINST {
            let both = self.find(contender, route).zip(self.find(other, route));
            let Some((figures, other_s)) = both else { continue };
            let ratio = Ratio::of(&figures.cpu_us, &other_s.cpu_us, other);
            let wanted = match limit {
                Some(limit) => format!("at most {limit:.2} of {other}: {}", ratio.verdict(limit)),
                None => format!("beside {other}"),
            };
            let Ratio { median, lower_quartile, upper_quartile, .. } = ratio;
            let _ = writeln!(
                text,
                "{contender}, {}: {wanted} ({median:.3}, {lower_quartile:.3} to {upper_quartile:.3})",
                route.name()
            );
        }
        for (contender, other, route) in BESIDE {
            let both = self.find(contender, route).zip(self.find(other, route));
            let Some((figures, other_s)) = both else { continue };
            let Ratio { median, lower_quartile, upper_quartile, .. } =
                Ratio::of(&figures.cpu_us, &other_s.cpu_us, other);
            let within = if lower_quartile <= 1.0 { "within the spread of" } else { "more than" };
            let _ = writeln!(
                text,
                "{contender}, {}: {within} {other} ({median:.3}, {lower_quartile:.3} to {upper_quartile:.3})",
                route.name()
            );
        }
        text
    }
}

fn line(figures: &Figures) -> String {
    let ratio = figures.ratio.as_ref().map_or_else(
        || "-".to_owned(),
        |ratio| format!("{:.3} ({:.3} to {:.3})", ratio.median, ratio.lower_quartile, ratio.upper_quartile),
    );
    let commands: Vec<String> = figures.commands.iter().map(|(name, count)| format!("{count:.2} {name}")).collect();
    let cells = [
        &figures.contender,
        &with_spread(&figures.cpu_us),
        &ratio,
        &format!("{:.1}", median(&figures.redis_cpu_us)),
        &format!("{:.0}", figures.p50_us),
        &format!("{:.0}", figures.p99_us),
        &format!("{:.0}, {:.0}", figures.bytes_to_redis, figures.bytes_from_redis),
    ];
    format!("{}  {}", row(cells.map(String::as_str)), commands.join(", ")).trim_end().to_owned()
}

fn row([name, cpu, ratio, redis, p50, p99, bytes]: [&str; 7]) -> String {
    format!("{name:<15} {cpu:<23} {ratio:<23} {redis:>12} {p50:>7} {p99:>7} {bytes:>21}")
}

fn with_spread(values: &[f64]) -> String {
    let sorted = sorted(values);
    format!("{:.1} ({:.1} to {:.1})", quantile(&sorted, 0.5), quantile(&sorted, 0.25), quantile(&sorted, 0.75))
}

impl Ratio {
    /// The machine is never twice the same, so each round is compared with itself only.
    fn of(values: &[f64], base: &[f64], to: &'static str) -> Self {
        let ratios: Vec<f64> = values.iter().zip(base).map(|(value, base)| value / base).collect();
        let sorted = sorted(&ratios);
        Self {
            to,
            median: quantile(&sorted, 0.5),
            lower_quartile: quantile(&sorted, 0.25),
            upper_quartile: quantile(&sorted, 0.75),
        }
    }

    fn verdict(&self, limit: f64) -> &'static str {
        match self {
            ratio if ratio.median <= limit => "yes",
            ratio if ratio.lower_quartile <= limit => "within the spread",
            _ => "no",
        }
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn median(values: &[f64]) -> f64 {
    quantile(&sorted(values), 0.5)
}

/// Between two values, in proportion.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = part * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}
