//! Looks after the nodes: connects to each from time to time, logs in where the node has a user of its own, and remembers the answer.
//!
//! What a probe finds is shown, and told to clients as ParameterStatus. It never decides where a session goes.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::backend::{connect, describe};
use super::node::{Health, Node};
use super::{Desk, Rules};
use crate::pool::{OpenError, Parameters};

/// How often it is looked whether a probe is due.
const TURN: Duration = Duration::from_millis(250);
/// Between probes of a node that is up.
const INTERVAL_UP: Duration = Duration::from_secs(30);
/// Between probes of a node that is not.
const INTERVAL_DOWN: Duration = Duration::from_secs(5);

impl Desk {
    /// Probes the nodes of the rules in force, each in its own time, for ever.
    pub async fn probe_nodes(self: Rc<Self>) {
        loop {
            let rules = self.rules();
            for node in &rules.nodes {
                let mut state = node.state.borrow_mut();
                if !state.is_being_probed && state.probe_at <= Instant::now() {
                    state.is_being_probed = true;
                    tokio_uring::spawn(Rc::clone(&self).probe(Rc::clone(&rules), Rc::clone(node)));
                }
            }
            sleep(TURN).await;
        }
    }

    async fn probe(self: Rc<Self>, rules: Rc<Rules>, node: Rc<Node>) {
        let found = self.look_at(&rules, &node).await;
        let mut state = node.state.borrow_mut();
        let (name, region) = (&*node.name, node.config.region.as_str());
        let interval = match found {
            Ok(parameters) => {
                if state.health != Health::Up {
                    info!(node = name, region, "node is up");
                }
                state.health = Health::Up;
                state.parameters = parameters;
                INTERVAL_UP
            }
            Err(error) => {
                let error = describe(&error);
                if state.health != Health::Down(error.clone()) {
                    warn!(node = name, region, error, "node is down");
                }
                // What it reported is still the best guess for when it is back.
                state.health = Health::Down(error);
                INTERVAL_DOWN
            }
        };
        state.probe_at = Instant::now() + interval;
        state.is_being_probed = false;
    }

    async fn look_at(&self, rules: &Rules, node: &Node) -> Result<Option<Arc<Parameters>>, OpenError> {
        let (Some(user), Some(_), Some(database)) = (&node.config.user, &node.config.password, &node.config.database) else {
            let deadline = Instant::now() + rules.config.pools.connect_timeout;
            return connect(node, deadline).await.map(|_| None);
        };
        let settings = [("application_name".into(), "domicile".into())];
        let (_, facts) = self.log_in_to(rules, node, user, database, &settings).await?;
        Ok(Some(self.interner.borrow_mut().share(facts.parameters.into())))
    }
}
