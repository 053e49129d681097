//! The counters as Prometheus reads them.
//!
//! A scrape takes a snapshot of what the workers and the control thread have counted, and writes that; nothing is registered and
//! nothing is kept between scrapes. Labels come from the configuration and from lists in the code, never from a client.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{FenceSample, FencedNode, LoginCounters};
use crate::policy::Policy;
use crate::session::{Counter, Counters, Memory};

/// What an answer with metrics says it is (OpenMetrics 1.0, which Prometheus asks for).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All that is measured, at one moment.
#[derive(Debug)]
pub struct Snapshot {
    counters: Vec<Family>,
    gauges: Vec<Family>,
}

/// A node, as its last probe has found it.
#[derive(Debug)]
pub struct NodeSample {
    /// Its name.
    pub name: String,
    /// The name of its region.
    pub region: String,
    /// Whether it could be used.
    pub up: bool,
    /// Whether it is a standby, if that is known.
    pub standby: Option<bool>,
    /// The kind of error of the last try, if it failed.
    pub error: Option<&'static str>,
}

#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    rows: Vec<(Labels, u64)>,
}

type Labels = Vec<(&'static str, String)>;

impl Snapshot {
    /// Adds up what the workers have counted. `policy` has the names of regions.
    pub fn take(
        workers: &[Arc<Counters>],
        policy: &Policy,
        logins: &LoginCounters,
        nodes: impl IntoIterator<Item = NodeSample>,
        memory: &Memory,
        fence: &FenceSample,
    ) -> Self {
        let sum = |counter: fn(&Counters) -> &Counter| workers.iter().map(|counters| counter(counters).get()).sum::<u64>();
        let labelled = |label: &'static str, value: &str| vec![(label, value.to_owned())];
        let mut counters = vec![
            Family {
                name: "residency_decisions",
                help: "Decisions of the residency policy, by outcome, reason and region of the session",
                rows: decisions(workers, policy),
            },
            Family {
                name: "logins",
                help: "Connections of clients, by how their login ended",
                rows: logins.all().map(|(outcome, count)| (labelled("outcome", outcome.as_str()), count)).collect(),
            },
            Family {
                name: "logins_refused",
                help: "Logins that a bound of the clients has refused, by the option that sets it",
                rows: logins.refused().map(|(limit, count)| (labelled("limit", limit.option()), count)).collect(),
            },
            single(
                "logins_delayed",
                "Logins that had to wait because others of their address and user have failed",
                logins.delayed(),
            ),
            single("sessions_started", "Sessions that began", sum(|counters| &counters.sessions_total)),
            single("answers", "Queries, function calls and Syncs answered by a backend", sum(|counters| &counters.answers_total)),
            single("pins", "Sessions that began to keep their backend", sum(|counters| &counters.pins_total)),
            Family {
                name: "cancels",
                help: "Cancel requests: sent to a server, answered for a session that waited, dropped, or of no session's key",
                rows: vec![
                    (labelled("outcome", "sent"), sum(|counters| &counters.cancels_sent_total)),
                    (labelled("outcome", "answered"), sum(|counters| &counters.cancels_answered_total)),
                    (labelled("outcome", "dropped"), sum(|counters| &counters.cancels_dropped_total)),
                    (labelled("outcome", "unknown"), logins.cancels_unknown()),
                ],
            },
            Family {
                name: "timeouts",
                help: "What was ended because it took too long: statements, transactions, idle sessions, waits for a backend",
                rows: vec![
                    (labelled("timeout", "query"), sum(|counters| &counters.timeouts_query_total)),
                    (labelled("timeout", "transaction"), sum(|counters| &counters.timeouts_transaction_total)),
                    (labelled("timeout", "idle_in_transaction"), sum(|counters| &counters.timeouts_idle_in_transaction_total)),
                    (labelled("timeout", "client_idle"), sum(|counters| &counters.timeouts_client_idle_total)),
                    (labelled("timeout", "wait"), sum(|counters| &counters.timeouts_wait_total)),
                ],
            },
            single(
                "worker_restarts",
                "Workers that broke down and were replaced",
                sum(|counters| &counters.lives_total).saturating_sub(workers.len() as u64),
            ),
            single(
                "internal_errors",
                "Sessions ended because the proxy has broken a rule of its own (XX000)",
                sum(|counters| &counters.internal_errors_total),
            ),
            single(
                "statements_refused",
                "Prepared statements refused because their session had as many as it may have",
                sum(|counters| &counters.statements_refused_total),
            ),
            single(
                "memory_ended_sessions",
                "Sessions ended because memory was short",
                sum(|counters| &counters.memory_ended_total),
            ),
            single("backends_opened", "Backends opened", sum(|counters| &counters.backends_opened_total)),
            single("backends_closed", "Backends closed, by either side", sum(|counters| &counters.backends_closed_total)),
            Family {
                name: "protocol_errors",
                help: "Connections ended because the peer broke the protocol, after its login",
                rows: vec![
                    (labelled("peer", "frontend"), sum(|counters| &counters.frontend_protocol_errors_total)),
                    (labelled("peer", "backend"), sum(|counters| &counters.backend_protocol_errors_total)),
                ],
            },
        ];
        let nodes: Vec<NodeSample> = nodes.into_iter().collect();
        let of = |node: &NodeSample| vec![("node", node.name.clone()), ("region", node.region.clone())];
        let more = |node: &NodeSample, name, value: &str| ([of(node), labelled(name, value)].concat(), 1);
        let role = |node: &NodeSample| Some(more(node, "role", if node.standby? { "standby" } else { "primary" }));
        let error = |node: &NodeSample| Some(more(node, "error", node.error?));
        let mut gauges = vec![
            single("sessions", "Sessions there are", sum(|counters| &counters.sessions)),
            single("memory_resident_bytes", "Memory that the process has", memory.resident_bytes()),
            single(
                "memory_pressure",
                "How near that is to limits.memory_limit: 0 not, 1 so that clients are not read, 2 so that sessions end",
                memory.pressure() as u64,
            ),
            single("sessions_waiting", "Sessions that wait for a backend", sum(|counters| &counters.sessions_waiting)),
            Family {
                name: "backends",
                help: "Backends there are, by state",
                rows: vec![
                    (labelled("state", "idle"), sum(|counters| &counters.backends_idle)),
                    (labelled("state", "busy"), sum(|counters| &counters.backends_busy)),
                    (labelled("state", "opening"), sum(|counters| &counters.backends_opening)),
                ],
            },
            Family {
                name: "node_up",
                help: "Whether a node could be used when it was last tried",
                rows: nodes.iter().map(|node| (of(node), u64::from(node.up))).collect(),
            },
            Family {
                name: "node_role",
                help: "What the server of a node has said it is: primary or standby",
                rows: nodes.iter().filter_map(role).collect(),
            },
            Family {
                name: "node_error",
                help: "Why a node that is down could not be used",
                rows: nodes.iter().filter_map(error).collect(),
            },
            single("policy_generation", "Residency policies since the start; a reload adds one", policy.generation()),
        ];
        counters.extend(fence_counters(fence));
        gauges.extend(fence_gauges(fence));
        Self { counters, gauges }
    }

    /// The snapshot as text, see [`CONTENT_TYPE`].
    ///
    /// # Errors
    /// None that can happen: writing to memory does not fail.
    pub fn encode(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("domicile");
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

fn single(name: &'static str, help: &'static str, value: u64) -> Family {
    Family { name, help, rows: vec![(Labels::new(), value)] }
}

/// What the kernel has counted. Workers are added up: the console and the maps tell them apart.
fn fence_counters(fence: &FenceSample) -> Vec<Family> {
    let Some(counted) = &fence.counted else { return Vec::new() };
    let mut connections = BTreeMap::<_, u64>::new();
    let mut packets = BTreeMap::<_, (u64, u64)>::new();
    for flow in &counted.flows {
        let whose = (flow.region.as_str(), flow.node.as_str(), flow.verdict);
        if flow.direction == "connect" {
            *connections.entry(whose).or_default() += flow.flows;
        } else {
            let sums = packets.entry((whose, flow.direction)).or_default();
            (sums.0, sums.1) = (sums.0 + flow.packets, sums.1 + flow.bytes);
        }
    }
    let labels = |(region, node, verdict): (&str, &str, &str)| {
        vec![("region", region.to_owned()), ("node", node.to_owned()), ("verdict", verdict.to_owned())]
    };
    let in_direction =
        |(whose, direction): &((&str, &str, &str), &str)| [labels(*whose), vec![("direction", (*direction).to_owned())]].concat();
    vec![
        Family {
            name: "fence_connections",
            help: "Connections that the kernel's fence was asked about, by region, node and verdict",
            rows: connections.iter().map(|(whose, count)| (labels(*whose), *count)).collect(),
        },
        Family {
            name: "fence_packets",
            help: "Packets of connections to servers, as the kernel's fence has seen them",
            rows: packets.iter().map(|(whose, (packets, _))| (in_direction(whose), *packets)).collect(),
        },
        Family {
            name: "fence_bytes",
            help: "Bytes of those packets, IP headers included",
            rows: packets.iter().map(|(whose, (_, bytes))| (in_direction(whose), *bytes)).collect(),
        },
    ]
}

fn fence_gauges(fence: &FenceSample) -> Vec<Family> {
    let labelled = |label: &'static str, value: &str| vec![(label, value.to_owned())];
    let mut gauges = vec![Family {
        name: "fence_up",
        help: "Whether the kernel's fence is around the proxy",
        rows: vec![(labelled("mode", fence.mode), u64::from(fence.absent.is_none()))],
    }];
    if let Some((reason, _)) = &fence.absent {
        gauges.push(Family { name: "fence_absent", help: "Why it is not", rows: vec![(labelled("reason", reason), 1)] });
    }
    if let Some(counted) = &fence.counted {
        let of = |node: &FencedNode| vec![("node", node.node.clone()), ("region", node.region.clone())];
        gauges.push(single("fence_generation", "Allow-lists that the fence has had", counted.generation));
        gauges.push(Family {
            name: "fence_open_connections",
            help: "Connections to a node that are open, as the kernel counts them",
            rows: counted.nodes.iter().map(|node| (of(node), node.established.saturating_sub(node.closed))).collect(),
        });
        gauges.push(Family {
            name: "fence_round_trip_microseconds",
            help: "The smoothed round-trip time that a connection to a node had last",
            rows: counted.nodes.iter().map(|node| (of(node), u64::from(node.srtt_us))).collect(),
        });
    }
    gauges
}

fn decisions(workers: &[Arc<Counters>], policy: &Policy) -> Vec<(Labels, u64)> {
    let mut sums = BTreeMap::<_, u64>::new();
    for (outcome, region, count) in workers.iter().flat_map(|counters| counters.decisions()) {
        let region = policy.region_name(&region).to_owned();
        *sums.entry((outcome.as_str(), outcome.reason(), region)).or_default() += count;
    }
    let labels = |(outcome, reason, region): (&str, &str, String)| {
        vec![("outcome", outcome.to_owned()), ("reason", reason.to_owned()), ("region", region)]
    };
    sums.into_iter().map(|(key, count)| (labels(key), count)).collect()
}

impl Family {
    fn encode<M: EncodeMetric>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        kind: MetricType,
        metric: fn(u64) -> M,
    ) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for (labels, value) in &self.rows {
            if labels.is_empty() {
                return metric(*value).encode(family);
            }
            metric(*value).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in &self.counters {
            family.encode(&mut encoder, MetricType::Counter, ConstCounter::new)?;
        }
        for family in &self.gauges {
            family.encode(&mut encoder, MetricType::Gauge, ConstGauge::new)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::observe::LoginOutcome;

    #[test]
    fn a_scrape_is_text_that_prometheus_reads() {
        let counters = Arc::new(Counters::default());
        counters.sessions.set(2);
        let logins = LoginCounters::default();
        logins.count(LoginOutcome::Admitted);
        let node = NodeSample {
            name: "pg-eu-west".to_owned(),
            region: "eu-west".to_owned(),
            up: true,
            standby: Some(false),
            error: None,
        };
        let down = NodeSample {
            name: "pg-us-east".to_owned(),
            region: "us-east".to_owned(),
            up: false,
            standby: None,
            error: Some("refused"),
        };
        let workers = [counters.clone(), counters];
        let text = Snapshot::take(
            &workers,
            &crate::observe::any_policy(),
            &logins,
            [node, down],
            &Memory::default(),
            &FenceSample::default(),
        )
        .encode()
        .unwrap();
        let shown: Vec<&str> = text
            .lines()
            .filter(|line| ["sessions ", "admitted", "node_", "EOF"].iter().any(|word| line.contains(word)))
            .collect();
        expect![[r#"
            domicile_logins_total{outcome="admitted"} 1
            # HELP domicile_memory_ended_sessions Sessions ended because memory was short
            # TYPE domicile_memory_ended_sessions counter
            # HELP domicile_sessions Sessions there are
            # TYPE domicile_sessions gauge
            domicile_sessions 4
            # HELP domicile_memory_pressure How near that is to limits.memory_limit: 0 not, 1 so that clients are not read, 2 so that sessions end
            # HELP domicile_node_up Whether a node could be used when it was last tried
            # TYPE domicile_node_up gauge
            domicile_node_up{node="pg-eu-west",region="eu-west"} 1
            domicile_node_up{node="pg-us-east",region="us-east"} 0
            # HELP domicile_node_role What the server of a node has said it is: primary or standby
            # TYPE domicile_node_role gauge
            domicile_node_role{node="pg-eu-west",region="eu-west",role="primary"} 1
            # HELP domicile_node_error Why a node that is down could not be used
            # TYPE domicile_node_error gauge
            domicile_node_error{node="pg-us-east",region="us-east",error="refused"} 1
            # EOF"#]]
        .assert_eq(&shown.join("\n"));
    }
}
