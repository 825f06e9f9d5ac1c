//! What a request costs with sessions: this project beside bare Axum, beside the least that one can do by hand, and beside
//! the other session libraries (`benches/peers`).
//!
//! Run it with `cargo bench --bench http`; `docs/benchmarks.md` says how it measures and what it found.

#![allow(clippy::print_stdout, reason = "a program for a terminal")]

mod contender;
mod cpu;
mod load;
mod report;
mod serve;
mod servers;
mod settings;
mod shopper;

use std::env;
use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use redis_session_testkit::{Cluster, Proxy, RedisServer};

use contender::{Contender, Server};
use load::{Load, Route};
use report::{Figures, Report};
use settings::Settings;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", name] => serve_as(name),
        // A test runner that looks for tests: there are none.
        args if args.contains(&"--list") => Ok(()),
        // `cargo bench` says that it is it; anything else only tries whether all of this works.
        args => bench(&Settings::from_env(args.contains(&"--bench"))?),
    }
}

/// As one would in an application: a runtime of as many threads as there are processors.
fn serve_as(name: &str) -> Result<(), Box<dyn Error>> {
    let redis = env::var("REDIS_URL")?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(servers::run(name, &redis))
}

/// The load takes one thread, so that the servers have at least the other processor.
fn bench(settings: &Settings) -> Result<(), Box<dyn Error>> {
    let redis = Redis::start(settings);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report {
        rounds: settings.rounds,
        requests_a_round: settings.requests,
        connections: settings.connections,
        visitors: settings.visitors,
        results: figures(settings),
    };
    runtime.block_on(measure(settings, &redis, &mut report.results))?;
    runtime.block_on(count(settings, &redis, &mut report.results))?;
    report.finish();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-http.json");
    fs::write(&file, serde_json::to_vec_pretty(&report)?)?;
    println!("{}\n{}\nAll rounds: {}", report.table(), report.verdicts(), file.display());
    Ok(())
}

fn figures(settings: &Settings) -> Vec<Figures> {
    let of = |route| settings.contenders.iter().filter(move |c| c.routes.contains(route)).map(move |c| (route, c));
    settings.routes.iter().flat_map(of).map(|(route, contender)| Figures::new(*route, &contender.name)).collect()
}

/// Processor time and latency, contenders in turn, so that a slow minute of the machine hits them all.
async fn measure(settings: &Settings, redis: &Redis, results: &mut [Figures]) -> io::Result<()> {
    let mut stands = Vec::with_capacity(settings.contenders.len());
    for contender in &settings.contenders {
        stands.push(Stand::open(contender, &redis.url(contender), settings).await?);
    }
    for round in 0..settings.rounds {
        for &route in &settings.routes {
            // Forwards and backwards: nobody always comes after the same neighbour.
            let mut turns: Vec<_> = stands.iter_mut().filter(|stand| stand.contender.routes.contains(&route)).collect();
            if round % 2 == 1 {
                turns.reverse();
            }
            for stand in turns {
                let server = redis.server(stand.contender);
                stand.take_turn(route, settings.requests, server, results).await?;
            }
        }
    }
    Ok(())
}

/// Where the contenders keep their sessions.
struct Redis {
    single: RedisServer,
    /// `None`: nobody needs it.
    cluster: Option<Cluster>,
}

impl Redis {
    fn start(settings: &Settings) -> Self {
        let compact = ("hash-max-listpack-value", "1024");
        let cluster = settings.contenders.iter().any(Contender::is_on_a_cluster).then(|| {
            Cluster::options().primaries(1).replicas(0).start_with(|options| options.setting(compact.0, compact.1))
        });
        Self { single: RedisServer::start_with(&[compact]), cluster }
    }

    fn url(&self, contender: &Contender) -> String {
        self.of(contender).map_or_else(|| self.single.url(), Cluster::url)
    }

    fn server(&self, contender: &Contender) -> &RedisServer {
        self.of(contender).map_or(&self.single, |cluster| &cluster.nodes()[0])
    }

    fn of(&self, contender: &Contender) -> Option<&Cluster> {
        self.cluster.as_ref().filter(|_| contender.is_on_a_cluster())
    }
}

/// A contender's server with its load.
struct Stand<'a> {
    contender: &'a Contender,
    server: Server,
    load: Load,
}

impl<'a> Stand<'a> {
    async fn open(contender: &'a Contender, redis_url: &str, settings: &Settings) -> io::Result<Self> {
        let server = contender.start(redis_url)?;
        let load = Load::begin(server.address, settings.connections, settings.visitors).await?;
        Ok(Self { contender, server, load })
    }

    async fn take_turn(
        &mut self,
        route: Route,
        requests: usize,
        redis: &RedisServer,
        results: &mut [Figures],
    ) -> io::Result<()> {
        // The others had the processor's caches meanwhile.
        self.load.run(route, requests / 20).await?;
        let (cpu, redis_cpu) = (self.server.cpu()?, redis.used_cpu_micros());
        let took = self.load.run(route, requests).await?;
        // What a server does after its answer counts too.
        tokio::time::sleep(Duration::from_millis(10)).await;
        let (cpu, redis_cpu) = (self.server.cpu()? - cpu, redis.used_cpu_micros() - redis_cpu);
        let figures = find(results, &self.contender.name, route);
        figures.cpu_us.push(cpu.as_secs_f64() * 1e6 / took.len() as f64);
        figures.redis_cpu_us.push(redis_cpu as f64 / took.len() as f64);
        figures.took.extend(took);
        Ok(())
    }
}

fn find<'a>(results: &'a mut [Figures], contender: &str, route: Route) -> &'a mut Figures {
    let found = results.iter_mut().find(|figures| figures.contender == contender && figures.route == route.name());
    found.expect("there are figures for every route of every contender")
}

/// Commands and bytes, by a proxy before Redis and so apart from the processor time.
async fn count(settings: &Settings, redis: &Redis, results: &mut [Figures]) -> io::Result<()> {
    // A cluster's servers say themselves where they are, so nobody stands between; the commands are those of `redis`.
    for contender in settings.contenders.iter().filter(|contender| !contender.is_on_a_cluster()) {
        let proxy = Proxy::start(redis.single.address());
        let mut stand = Stand::open(contender, &proxy.url(), settings).await?;
        for &route in settings.routes.iter().filter(|route| contender.routes.contains(route)) {
            // A script is sent as a whole when Redis does not know it yet.
            stand.load.run(route, settings.connections).await?;
            proxy.reset_counts();
            let requests = stand.load.run(route, settings.requests.min(2_000)).await?.len() as f64;
            let figures = find(results, &contender.name, route);
            figures.bytes_to_redis = proxy.bytes_to_server() as f64 / requests;
            figures.bytes_from_redis = proxy.bytes_to_client() as f64 / requests;
            // Health checks are by the clock, whether there are requests or not.
            let by_requests = proxy.counts().into_iter().filter(|(name, _)| !["TIME", "PING"].contains(&&**name));
            figures.commands = by_requests.map(|(name, count)| (name, count as f64 / requests)).collect();
        }
    }
    Ok(())
}
