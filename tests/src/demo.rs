//! The two regions of the demo: what stands on their servers.
//!
//! Both servers have the same tables and different rows, so that an answer shows which of them gave it.

use crate::cluster::{Cluster, Options};

/// A region of the demo, its node and the people who live there.
#[derive(Clone, Copy, Debug)]
pub struct Home {
    /// Region.
    pub region: &'static str,
    /// Node, which is also the server's `cluster_name`.
    pub node: &'static str,
    /// The port of `configs/demo.toml`.
    pub port: u16,
    users: [&'static str; 3],
}

/// Both of them, in the order of `configs/demo.toml`.
pub const HOMES: [Home; 2] = [
    Home { region: "eu-west", node: "pg-eu-west", port: 5433, users: ["Amélie", "Bruno", "Chiara"] },
    Home { region: "us-east", node: "pg-us-east", port: 5434, users: ["Dakota", "Emma", "Frank"] },
];

/// Starts the server of a home and fills it.
pub fn start(home: &Home, port: Option<u16>, connections_max: u32) -> Result<Cluster, String> {
    let cluster = Cluster::start(&Options { name: home.node, port, connections_max, ..Options::default() })?;
    cluster.execute("postgres", "CREATE DATABASE demo")?;
    cluster.execute("demo", &schema(home))?;
    // Only sessions that begin after this have the search path.
    cluster.execute("demo", SEARCH_PATH)?;
    Ok(cluster)
}

fn schema(home: &Home) -> String {
    let row = |(index, name): (usize, &&str)| format!("({}, '{name}', '{}')", index + 1, home.region);
    let rows: Vec<String> = home.users.iter().enumerate().map(row).collect();
    let users = "CREATE TABLE public.users (id int PRIMARY KEY, name text NOT NULL, region text NOT NULL)";
    format!("{CLUSTER_NODE}; {users}; INSERT INTO public.users VALUES {}", rows.join(", "))
}

/// `cluster_node` is no setting of PostgreSQL. The calls of the demo ask for it with `current_setting('cluster_node')`, so this
/// database has a function of that name, found before PostgreSQL's own, that answers it from `cluster_name`.
const CLUSTER_NODE: &str = "CREATE SCHEMA demo;
    CREATE FUNCTION demo.current_setting(name text) RETURNS text LANGUAGE sql STABLE AS
    $$SELECT pg_catalog.current_setting(CASE name WHEN 'cluster_node' THEN 'cluster_name' ELSE name END)$$";
const SEARCH_PATH: &str = "ALTER DATABASE demo SET search_path = demo, pg_catalog, public";
