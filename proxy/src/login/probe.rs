//! Looks after the nodes: connects to each from time to time, logs in where the node has a user of its own, and remembers the answer.
//!
//! What a probe finds is shown, told to clients as ParameterStatus, and part of the choice among the nodes of one region. It never
//! decides which region that is.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::backend::{Startup, chance};
use super::backoff::Backoff;
use super::connect::Asker;
use super::node::{Node, Success, state_of};
use super::{Desk, Rules};
use crate::config::Secret;
use crate::pool::{OpenError, Parameters};
use crate::wire::startup::Replication;

/// How often it is looked whether a probe is due.
const TURN: Duration = Duration::from_millis(250);

impl Desk {
    /// Probes the nodes of the rules in force, each in its own time, for ever.
    pub async fn probe_nodes(self: Rc<Self>) {
        loop {
            let rules = self.rules();
            let probes = !rules.config.pools.probe_interval.is_zero();
            for node in rules.nodes.iter().filter(|node| probes && node.begin_probe(Instant::now())) {
                tokio_uring::spawn(Rc::clone(&self).probe(Rc::clone(&rules), Rc::clone(node)));
            }
            sleep(TURN).await;
        }
    }

    async fn probe(self: Rc<Self>, rules: Rc<Rules>, node: Rc<Node>) {
        let attempt = Backoff::begin_anyway(Instant::now());
        let found = self.look_at(&rules, &node).await;
        let now = Instant::now();
        match found {
            Ok(None) => {
                if node.succeeded(Success::Connect) {
                    rules.has_news_of(&node);
                }
            }
            Ok(Some(parameters)) => {
                let (is_back, has_changed) =
                    (node.succeeded(Success::ProbersLogin), node.see(now, state_of(&parameters, &[]), true));
                if is_back || has_changed {
                    rules.has_news_of(&node);
                }
                node.state.borrow_mut().parameters = Some(parameters);
            }
            // What it reported is still the best guess for when it is back. A login that is only wrong for the prober keeps nobody else
            // from trying.
            Err(error) => node.failed(error.is_absence().then_some(attempt), &error, now, chance()),
        }
        node.end_probe(now, rules.config.pools.probe_interval);
    }

    /// What it reports to the prober; nothing if there is no user to log in as.
    async fn look_at(&self, rules: &Rules, node: &Node) -> Result<Option<Arc<Parameters>>, OpenError> {
        let deadline = Instant::now() + rules.config.pools.connect_timeout;
        let (Some(user), Some(password), Some(database)) = (&node.config.user, &node.config.password, &node.config.database)
        else {
            let (socket, _) = self.connect(rules, node, Asker::default(), deadline).await?;
            return self.secure(node, &node.config.region, socket, deadline).await.map(|_| None);
        };
        let settings = [("application_name".into(), "domicile".into())];
        let (secret, asker) = (Some(Secret::Plain(password.clone())), Asker::default());
        let startup = Startup { user, database, replication: Replication::None, settings: &settings, secret, asker };
        let (_, facts, _) = self.log_in_to(rules, node, &startup, deadline).await?;
        Ok(Some(self.shared.borrow_mut().parameters.share(facts.parameters.into())))
    }
}
